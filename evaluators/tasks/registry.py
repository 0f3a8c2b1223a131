"""Registry of the paper's sixteen tasks, and how to create their evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dataset_builders.environments import HELD_IN, EnvironmentSpec, load_environment
from dataset_builders.environments.references import is_reference
from dataset_builders.errors import ConfigError
from dataset_builders.settings import fields_of, options, read_settings, settings, suggestion
from evaluators.models.judge_settings import JudgeSettings
from evaluators.tasks.held_out import HELD_OUT

if TYPE_CHECKING:
    from evaluators.evaluator import Evaluator, Suite


@options
class _NoOptions:
    pass


@settings
class SuiteSettings:
    """Settings of the benchmarks; each takes what concerns it."""

    data: str | None = Field(default=None, description="Folder with one data folder per task.")
    prompt: str = Field(
        default="own",
        description="Prompt template: own (built in) or published (from AgentInstruct).",
    )
    agentinstruct: str | None = Field(
        default=None, description="AgentInstruct copy, for the published prompts."
    )
    prompt_suffix: str = Field(
        default="",
        description="Text appended to the prompt of agent tasks, such as the marker of correct "
        "episodes that a model was trained with; see docs/methods/negatives.md.",
    )
    batch_size: int = Field(
        default=16,
        ge=1,
        description="Maximum concurrent episodes. [default: 16; on a server up to 64]",
    )
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Maximum tokens of an answer, if below the tasks' own; for trials.",
    )
    judge: JudgeSettings | None = Field(
        default=None, description="Judging model of MT-Bench, ReWOO and WebArena."
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Further settings by task, such as `{database: {backend: mariadb}}`.",
    )
    seed: int = Field(
        default=0, description="Seed of what is drawn, such as answers; items keep their order."
    )
    oracle: bool = Field(
        default=False, description="Play with the environments' oracles instead of a model."
    )

    def options_of(self, name: str) -> Any:
        """A benchmark's options, as an object of its `Benchmark.options_model`.

        Raises:
            ConfigError: One is unknown or has a value that cannot be.
        """
        (benchmark,) = select([name])
        return benchmark.read_options(self.options.get(name, {}))

    def environment_options(self, name: str) -> dict[str, Any]:
        """Of these options, those that are the environment's, as they were given."""
        own = fields_of(select([name])[0].own_options)
        return {k: v for k, v in self.options.get(name, {}).items() if k not in own}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One task of the paper's main table, or one that a reference leads to.

    Attributes:
        name: Name of the task in recipes and on the command line; or the reference.
        title: Title in the paper's table.
        suite: Group in the paper.
        place: "module:function" that makes the evaluator of `(name, SuiteSettings)`. It
            raises an `AgentTuningError` with one line that states what is missing here and how to
            get it.
        metric: The metric that the paper reports.
        scale: Factor from the evaluator's primary figure to the paper's unit: 100 for a
            percentage, 1 for MT-Bench's points.
    """

    name: str
    title: str
    suite: Suite
    place: str
    metric: str
    scale: float = 100.0

    @property
    def key(self) -> str:
        """Name of its figures and transcripts."""
        return self._environment.name if self._is_own else self.name.replace("/", "_")

    @property
    def _is_own(self) -> bool:
        return self.suite == OWN

    @property
    def _environment(self) -> EnvironmentSpec:
        return load_environment(self.name)

    @property
    def options_model(self) -> type:
        """Settings class of its options: its own and its environment's."""
        if self._is_own:
            environment = self._environment
        elif (place := (HELD_IN | HELD_OUT).get(self.name)) is not None:
            environment = EnvironmentSpec(self.name, place=place)
        else:
            return self.own_options
        return options(type("Options", (self.own_options, environment.options_model), {}))

    def read_options(self, given: Mapping[str, Any]) -> Any:
        """Options by name as an object of `options_model`; None stands for a default.

        Raises:
            ConfigError: One is unknown or has a value that cannot be.
        """
        values = {name: value for name, value in given.items() if value is not None}
        return read_settings(self.options_model, values, self.name)

    @property
    def own_options(self) -> type:
        """Settings class of the options beside its environment's: `Options` of its module."""
        found: type = getattr(import_module(self.place.partition(":")[0]), "Options", _NoOptions)
        return found

    def evaluator(self, settings: SuiteSettings) -> Evaluator:
        """Create the evaluator.

        Raises:
            AgentTuningError: It cannot run here; the message is one line with the remedy.
        """
        module, _, function = self.place.partition(":")
        made: Evaluator = getattr(import_module(module), function)(self.name, settings)
        if settings.prompt_suffix:
            from evaluators.tasks.agent_task import AgentTaskEvaluator

            if isinstance(made, AgentTaskEvaluator):
                made.extend_prompt(settings.prompt_suffix)
        return made


_HELD_IN = "evaluators.tasks.held_in:held_in_evaluator"
_OUT = "evaluators.tasks.held_out"

BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark("alfworld", "ALFWorld", "held-in", _HELD_IN, "success rate"),
    Benchmark("webshop", "WebShop", "held-in", _HELD_IN, "reward"),
    Benchmark("mind2web", "Mind2Web", "held-in", _HELD_IN, "step success rate"),
    Benchmark("knowledge_graph", "KG", "held-in", _HELD_IN, "F1"),
    Benchmark("os", "OS", "held-in", _HELD_IN, "success rate"),
    Benchmark("database", "Database", "held-in", _HELD_IN, "success rate"),
    Benchmark("science_world", "SciWorld", "held-out", f"{_OUT}.science_world:make", "reward"),
    Benchmark("miniwob", "MiniWoB++", "held-out", f"{_OUT}.miniwob:make", "success rate"),
    Benchmark("web_arena", "WebArena", "held-out", f"{_OUT}.web_arena:make", "success rate"),
    Benchmark("hotpot_qa", "HotpotQA", "held-out", f"{_OUT}.hotpot_qa:make", "F1"),
    Benchmark("rewoo", "ReWOO", "held-out", f"{_OUT}.rewoo:make", "accuracy"),
    Benchmark("card_game", "Digital Card Game", "held-out", f"{_OUT}.card_game:make", "win rate"),
    Benchmark("mmlu", "MMLU", "general", "evaluators.tasks.general.mmlu:make", "accuracy"),
    Benchmark(
        "human_eval", "HumanEval", "general", "evaluators.tasks.general.human_eval:make", "pass@1"
    ),
    Benchmark("gsm8k", "GSM8K", "general", "evaluators.tasks.general.gsm8k:make", "accuracy"),
    Benchmark(
        "mt_bench", "MT-Bench", "general", "evaluators.tasks.general.mt_bench:make", "score", 1.0
    ),
)
"""In the order of the paper's main table."""

FURTHER: tuple[Benchmark, ...] = (
    Benchmark("refusal", "Refusal", "general", "evaluators.tasks.refusal.evaluator:make", "safety"),
)
"""Not the paper's: measured only when named, and in no Overall."""

IN_FLIGHT = 64
"""Most episodes in parallel on a server, by default."""

SUITES: tuple[Suite, ...] = ("held-in", "held-out", "general")

OWN: Suite = "own"
"""Suite of environments that are not the paper's; there is no Overall of it."""

LM_EVAL = "lm_eval/"
"""Prefix of the name of a task or group of lm_eval, such as `lm_eval/arc_easy`."""


def is_benchmark(name: str) -> bool:
    """Whether it is in the tables, or names a task of lm_eval or an environment by reference.

    These may not exist.
    """
    known = any(benchmark.name == name for benchmark in (*BENCHMARKS, *FURTHER))
    return known or (name.startswith(LM_EVAL) and name != LM_EVAL) or is_reference(name)


def select(names: list[str]) -> list[Benchmark]:
    """Return benchmarks by names of suites or benchmarks, in the table's order.

    Others follow in the order of their names: `refusal`, tasks of lm_eval, own environments.

    Raises:
        ConfigError: A name is neither, and the message lists the known ones; a reference leads to
            no environment, or two lead to environments of one name.
    """
    for name in names:
        if name not in SUITES and not is_benchmark(name):
            known = [*SUITES, *sorted(each.name for each in (*BENCHMARKS, *FURTHER))]
            raise ConfigError(
                f"suite {name!r} is unknown; known: {', '.join(known)}, {LM_EVAL}TASK, "
                "module:Class, ./file.py:Class"
            )
    chosen = [b for b in BENCHMARKS if b.name in names or b.suite in names]
    tables = {*SUITES, *(b.name for b in chosen)}
    chosen += [_beyond(name) for name in dict.fromkeys(names) if name not in tables]
    keys = [b.key for b in chosen]
    if repeated := [b.name for b in chosen if keys.count(b.key) > 1]:
        raise ConfigError(f"{', '.join(repeated)}: lead to one name, expected one for each")
    return chosen


def _beyond(name: str) -> Benchmark:
    further = next((each for each in FURTHER if each.name == name), None)
    if further is not None:
        return further
    if name.startswith(LM_EVAL):
        place = "evaluators.tasks.general.lm_eval_tasks:make"
        title = name.removeprefix(LM_EVAL)
        return Benchmark(name, title, "general", place, "its first metric", 1.0)
    place = "evaluators.tasks.held_in:own_evaluator"
    return Benchmark(name, load_environment(name).name, OWN, place, "success rate")


def check_options(
    options: Mapping[str, Mapping[str, Any]], names: Sequence[str] | None = None
) -> None:
    """Check options by benchmark; nothing of the benchmarks is made.

    Args:
        options: As `SuiteSettings.options`.
        names: Suites and benchmarks that are measured; by default those of the options.

    Raises:
        ConfigError: Options are for a benchmark that is not measured, or one is unknown or has a
            value that cannot be.
    """
    measured = {each.name: each for each in select(list(options if names is None else names))}
    for name, given in options.items():
        if name not in measured:
            raise ConfigError(
                f"options: found {name!r}, expected a task that is measured: {', '.join(measured)}"
                f"{suggestion(name, measured)}"
            )
        measured[name].read_options(given)
