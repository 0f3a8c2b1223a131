"""Folders of training runs and sweeps, as runs leave them, with chosen scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.model_record import write_model_record
from evaluators.evaluator import EvalResult
from evaluators.results.evaluations import write_record
from evaluators.stats.aggregate import summarise


def evaluation(
    name: str, values: Sequence[float], score: str = "success", **more: Any
) -> EvalResult:
    """An evaluation whose items have these scores."""
    records = tuple(
        {"item": f"{name}-{n}", "scores": {score: float(value)}, "error": ""}
        for n, value in enumerate(values)
    )
    return EvalResult(name, summarise(records), 0, 10.0, records, primary=score, **more)


def write_run(
    folder: Path,
    start: Sequence[EvalResult],
    end: Sequence[EvalResult],
    *,
    seed: int = 1,
    section: Mapping[str, Any] | None = None,
    keys: Mapping[str, Any] | None = None,
    finished: bool = True,
) -> Path:
    """Write a run of 20 steps: its record, report and evaluations."""
    section = {"agent": "a.jsonl", "general": "g.jsonl", **(section or {})}
    text = json.dumps({"seed": seed, **(keys or {})})
    content: dict[str, Any] = {
        "base": {},
        "quantization": None,
        "recipe": {"trainer": "axolotl", "text": text, "section": section},
    }
    if finished:
        content["training"] = {"steps": 20, "first_step": 0, "seconds": 100.0}
    write_model_record(folder, content)
    eta = float(section.get("eta", 0.2))
    mix = {"share_of_examples": eta, "share_of_tokens": eta / 2, "share_of_trained_tokens": eta / 4}
    report = {"mix": {**mix, "tokens": 900, "trained_tokens": 300}}
    (folder / "agenttuning_report.json").write_text(json.dumps(report), "utf-8")
    for step, results in ((0, start), (20, end)):
        for result in results:
            write_record(folder, step, result)
    return folder


def write_sweep(
    out: Path, keys: Mapping[str, Sequence[str]], arms: Sequence[tuple[str, int, Mapping[str, str]]]
) -> None:
    """Write `sweep.json` and the marker of each arm whose folder exists: (group, seed, values)."""
    listed = [
        {"name": f"{group}_seed-{seed}", "group": group, "seed": seed, "values": dict(values)}
        for group, seed, values in arms
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "sweep.json").write_text(json.dumps({"keys": keys, "arms": listed}), "utf-8")
    for arm in listed:
        if (out / str(arm["name"])).is_dir():
            (out / str(arm["name"]) / "finished.json").write_text("{}", "utf-8")
