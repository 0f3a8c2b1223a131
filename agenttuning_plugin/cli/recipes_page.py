"""Generate recipes/README.md and the estimates in the recipes' headers; run by `make pages`."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from agenttuning_plugin.config.shipped import recipe_folder, recipe_names
from agenttuning_plugin.estimates.devices import GB
from agenttuning_plugin.estimates.recipe import RecipeEstimate, estimate_recipe

DEMO = "demo.yaml"
STUDY = "study-"
"""Prefix of recipes of many runs, for `agenttuning sweep`."""

_HEAD = """# Recipes

Begin with `qwen3-8b-qlora`, for one GPU of 24 GB:

```
agenttuning recipe list
agenttuning recipe copy qwen3-8b-qlora
agenttuning check qwen3-8b-qlora.yaml
accelerate launch --num_processes 1 -m axolotl.cli.train qwen3-8b-qlora.yaml
```

| Recipe | Base | Method | Hardware | Memory per GPU | Time | Run | Expected |
|---|---|---|---|---|---|---|---|
"""

_FOOT = """
This page is generated (`make pages`). *Estimated*: memory from the model's configuration, within
15 % of measured peaks on a CPU ([table](../docs/concepts/memory.md)), in GB of 2³⁰ bytes; time of
the training steps on as many H100s as the recipe has GPUs, from published utilisations. *Not
run*: no run of that size was made; the tests train two steps of each recipe on a tiny model.
*Measured*: from `benchmarks/results/`.

¹ The paper has no LoRA result. The evaluators measure the base at step 0 and the result at the
end, so compare these. The same holds for every recipe whose result is not known.

² The paper's Overall held-in / held-out / general.

`agentlm-*` and `trl_sft.py` have the paper's batch of 64: if you change `micro_batch_size`,
`gradient_accumulation_steps` or the number of GPUs, keep their product. While the model is sharded
(FSDP, ZeRO-3), evaluators that generate text gather the weights for each token, so those recipes
leave them to `agenttuning evaluate` on the saved model; evaluators that do not generate (losses,
replay) run as usual.
"""

_STRATEGY = {
    "none": "",
    "ddp": ", DDP",
    "zero2": ", ZeRO-2",
    "zero3": ", ZeRO-3",
    "fsdp2": ", FSDP2",
}
_METHOD = {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}


def page() -> str:
    """Return the page, in Markdown."""
    return _HEAD + "".join(row(name) + "\n" for name in sorted(recipe_names(), key=_order)) + _FOOT


@cache
def _estimated(name: str) -> RecipeEstimate:
    return estimate_recipe(recipe_folder() / name)


def _order(name: str) -> tuple[bool, bool, str]:
    """Put the demo first and the paper's recipes last."""
    return (name != DEMO, name.startswith(("agentlm", "trl_sft")), name)


def row(name: str) -> str:
    """Return a recipe's row of the table.

    Raises:
        ConfigError: Its memory cannot be estimated.
    """
    found = _estimated(name)
    base = str(found.cfg["base_model"]).rpartition("/")[2]
    cells = [f"`{name}`", base, _method(name, found), _hardware(found.header)]
    if name == DEMO:
        cells += [f"{found.memory.total / GB:.0f} GB, estimated", *_demo(found.header)]
    elif name.startswith(STUDY):
        cells += [f"{found.memory.total / GB:.0f} GB, estimated", *_study(found.header)]
    else:
        time = found.time_line().removeprefix("estimate ").rpartition(" on ")[0]
        cells += [f"{found.memory.total / GB:.0f} GB, estimated", f"{time}, estimated", "not run"]
        cells.append(_expected(name, found.header))
    return f"| {' | '.join(cells)} |"


def _method(name: str, found: RecipeEstimate) -> str:
    trainer = "TRL" if name.endswith(".py") else "Axolotl"
    trainer += " on Ray" if found.cfg.get("use_ray") else ""
    return f"{_METHOD[found.shape.method]}{_STRATEGY[found.shape.strategy]}, {trainer}"


def _hardware(header: str) -> str:
    words = re.search(r"Hardware: ([^.;,(]*)", header)
    return " ".join(words[1].split()) if words else ""


def _demo(header: str) -> list[str]:
    """Return the demo's time, status and result, from its runs."""
    results = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "demo_seeds.json"
    runs = json.loads(results.read_text("utf-8"))["runs"]
    found = [run["figures"]["database success"]["tuned"] for run in runs]
    minutes = re.search(r"([\d.]+) minutes", header)
    seeds = f"seeds 1, 2: {found[1]:.2f}, {found[2]:.2f}"
    return [
        f"{minutes[1] if minutes else '?'} min on two CPU cores, measured",
        "measured",
        f"database success from 0.00 to {found[0]:.2f} ({seeds})",
    ]


def _study(header: str) -> list[str]:
    """Return time, status and result of a study, from its header."""
    minutes = re.search(r"about ([\d.]+) minutes", header)
    page = re.search(r"Expected: the tables of (docs/\S+\.md)", header)
    return [
        f"{minutes[1] if minutes else '?'} min a run on one CPU core, `agenttuning sweep`",
        "in progress",
        f"[study](../{page[1]})" if page else "not known",
    ]


def _expected(name: str, header: str) -> str:
    figures = re.search(r"([\d.]+) held-in, ([\d.]+) held-out, ([\d.]+) general", header)
    if figures:
        return " / ".join(figures.groups()) + "²"
    return "not known¹" if name.startswith(("agentlm", "trl_sft")) else "not known"


def with_estimates(text: str, found: RecipeEstimate) -> str:
    """Return a recipe's text with the estimates in its header brought up to date.

    Replaces `Memory: estimate 15 GB` and, if there is one, `Time: estimate ...`; adds the
    latter's line after the former's in YAML.
    """
    text = re.sub(
        r"Memory: estimate \d+ GB( a GPU)?", f"Memory: {found.memory_line()}", text, count=1
    )
    time = f"Time: {found.time_line()}"
    if re.search(r"Time: estimate [^.]*\d[^\n]* H100s?", text):
        return re.sub(r"Time: estimate [^\n]* H100s?", time, text, count=1)
    return re.sub(r"(# Hardware: [^\n]*\n)", rf"\1# {time}.\n", text, count=1)


def main() -> None:
    """Write the page and the headers."""
    for name in recipe_names():
        path = recipe_folder() / name
        if name != DEMO and not name.startswith(STUDY):
            path.write_text(with_estimates(path.read_text("utf-8"), _estimated(name)), "utf-8")
    (recipe_folder() / "README.md").write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
