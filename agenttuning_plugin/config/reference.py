"""Generates the reference page of recipe keys from the models that validate them.

`make pages` writes docs/reference/recipe.md with it; a test compares them.
"""

from __future__ import annotations

from pydantic.fields import FieldInfo

from agenttuning_plugin.config.endpoint import EndpointConfig
from agenttuning_plugin.config.evaluation import (
    AgentLossConfig,
    AgentTaskConfig,
    BenchmarkConfig,
    GeneralKLConfig,
    GeneralLossConfig,
    RefusalConfig,
    ReplayConfig,
)
from agenttuning_plugin.config.recipe import (
    AgentTuningSection,
    EtaStage,
)
from agenttuning_plugin.config.sweep import SweepBlock
from dataset_builders.cleaning.steps import Cleaning
from dataset_builders.settings import fields_of
from dataset_builders.sources.loading import SourceSpec
from dataset_builders.sources.made import Refusals, ReplayEndpoint, SelfReplay
from dataset_builders.sources.recovery_settings import RecoverSettings
from dataset_builders.variation.settings import VarySettings
from evaluators.training.floors import BestCheckpoint, ScoreFloor
from evaluators.training.schedule import EvaluationPolicy

_PARTS: tuple[tuple[str, type], ...] = (
    ("agenttuning", AgentTuningSection),
    ("A stage, under `eta_stages`", EtaStage),
    ("A source, under `agent` or `general`", SourceSpec),
    ("`clean` of a source", Cleaning),
    ("`self_replay` of a source", SelfReplay),
    ("`model` of `self_replay`, for a server", ReplayEndpoint),
    ("`refusals` of a source", Refusals),
    ("`recover` of a source", RecoverSettings),
    ("`vary` of a source", VarySettings),
    ("An evaluator of `type: agent_task`", AgentTaskConfig),
    ("An evaluator of `type: general_loss`", GeneralLossConfig),
    ("An evaluator of `type: general_kl`", GeneralKLConfig),
    ("An evaluator of `type: agent_loss`", AgentLossConfig),
    ("An evaluator of `type: replay`", ReplayConfig),
    ("An evaluator of `type: refusal`", RefusalConfig),
    ("An evaluator of `type: benchmark`", BenchmarkConfig),
    ("`evaluation`", EvaluationPolicy),
    ("`best` of `evaluation`", BestCheckpoint),
    ("`endpoint`", EndpointConfig),
    ("`stop_if_general_drops` of `evaluation`, and `floor` of `best`", ScoreFloor),
    ("`sweep`, beside `agenttuning`", SweepBlock),
)

_HEAD = """# Recipe keys

A recipe is an Axolotl YAML with `plugins: [agenttuning_plugin.AgentTuningPlugin]` and the
section `agenttuning:`. Unknown keys in the section are refused. The recipe has no `datasets:`:
the plugin supplies the data, and without the plugin Axolotl stops instead of training
something else. A source may be given as its path alone.

A key of the section can also be set at the top level, as `agenttuning__eta` or `agenttuning.eta`,
at any depth (`agenttuning__evaluators__0__every`); it replaces the section's value. So a file for
Axolotl's `--sweep` may contain `agenttuning__eta: [0, 0.2]`, and on the command line
`accelerate launch -m axolotl.cli.train recipe.yaml --agenttuning__eta 0.3` overrides it.
`axolotl train` does not pass on flags of a plugin; such flags are refused there. Any other key
that begins with `agenttuning` is refused.

Axolotl keys that have no effect with the plugin, such as `dataset_exact_deduplication`,
`shuffle_merged_datasets` or `train_on_eos`, are refused with the reason. So is a top-level key
that is nearly one of Axolotl's, such as `gradient_acumulation_steps`, which Axolotl itself drops
silently. For other unknown keys the run logs a warning, and `agenttuning check` reports an error.

The run length is `max_steps`, or `general_passes` passes over the general data: the plugin counts
its rows when they are encoded and sets the number of steps, exact without sample packing and
about 0.2 % short with it. [`agenttuning sweep`](../guides/sweep.md) trains a recipe with several
values and seeds. To convert an ordinary Axolotl YAML, see [adopt](../guides/adopt.md).

`agenttuning check recipe.yaml` reports all problems in one run, with the functions that a run
uses: it validates the recipe with the installed Axolotl, builds the rows of a sample of each
source (of everything with `--full`), and creates the evaluators. Problems that would stop a run
or make it train something else are errors and give exit code 1; warnings do not. `--json` prints
[findings and figures](files.md) for scripts.

From Axolotl's own keys the plugin takes `sequence_len`, `excess_length_strategy`,
`sample_packing`, `eot_tokens`, `max_steps`, the batch sizes, `seed` and
`dataset_prepared_path`; it sets `curriculum_sampling` and, with packing and unless the recipe
does, `sample_packing_group_size` and `eval_sample_packing: false`. `~` in `base_model` is the
home folder. `seed` (42 if left out, as in the trainer) also determines an adapter's initial
weights, which Axolotl draws unseeded: the same recipe on the same machine trains the same weights.
"""


def page() -> str:
    """Return the page, in Markdown."""
    parts = [_HEAD]
    for title, model in _PARTS:
        head = "| Key | Default | Bounds | Description |\n|---|---|---|---|\n"
        parts.append(f"\n## {title}\n\n{head}")
        parts += [_row(name, field) for name, field in fields_of(model).items()]
    return "".join(parts)


def _row(name: str, field: FieldInfo) -> str:
    if name == "type":
        return ""
    default = "required" if field.is_required() else _default(field)
    bounds = ", ".join(
        f"{sign} {getattr(rule, key)}"
        for rule in field.metadata
        for key, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(rule, key)
    )
    return f"| `{name}` | {default} | {bounds} | {field.description} |\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if fields_of(value):  # has its own table
        return ""
    if value in (None, "", [], (), {}):
        return ""
    return f"`{str(value).lower() if value is True else value}`"


if __name__ == "__main__":
    print(page(), end="")
