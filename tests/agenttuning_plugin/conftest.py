"""The command line in this process, and a small mix with tasks and models, made by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agenttuning_plugin.cli import main as cli
from agenttuning_plugin.training_data.built_mix import BuiltMix
from dataset_builders.encoding.row_index import make_index
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.mixes import mix
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import EncodedSources, Encoding
from tests.support.axolotl_fixtures import (  # noqa: F401  # pytest finds them here
    axolotl_process,
    hub_data,
    llama_dir,
    load,
    make_rows,
    on_cpu,
    one_thread,
    prepared,
    pytest_collection_modifyitems,
    trl_recipe,
)
from tests.support.endpoint import ANSWER, Endpoint, serving

TASKS = ["os", "db", "alfworld"]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process through the real entry point."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agenttuning", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run_command


@pytest.fixture(scope="session")
def make_run(small_tokenizer: Any) -> Callable[..., tuple[Any, BuiltMix]]:
    """Makes a mix of 30 agent and 50 general rows; returns its rows and what they are of."""
    from datasets import Dataset

    def side(name: str, number: int, rng: Any, said: str) -> tuple[Any, Any]:
        rows: dict[str, list[Any]] = {"input_ids": [], "labels": [], "attention_mask": []}
        for i in range(number):
            asked = small_tokenizer.encode(f"<|im_start|>user\n{name} {i}: go on<|im_end|>\n")
            answer = small_tokenizer.encode(f"{said} {i}.<|im_end|>") * int(rng.integers(1, 5))
            turns = [(asked, False), (answer, True)] * int(rng.integers(1, 4))
            ids = [token for turn, _ in turns for token in turn]
            rows["input_ids"].append(ids)
            rows["labels"].append([t if on else -100 for turn, on in turns for t in turn])
            rows["attention_mask"].append([1] * len(ids))
        index = make_index(
            {
                "id": [f"{name}-{i}" for i in range(number)],
                "source": [name] * number,
                "task": [TASKS[i % 3] if name == "agent" else "" for i in range(number)],
                "model": ["gpt-4" if i % 5 == 0 else "" for i in range(number)],
                "where": [f"{name}.jsonl:{i + 1}" for i in range(number)],
                "tokens": [len(ids) for ids in rows["input_ids"]],
                "trained_tokens": [sum(x >= 0 for x in row) for row in rows["labels"]],
            },
            number,
        )
        return Dataset.from_dict(rows), index

    def make(
        plan: Plan | None = None,
        num_examples: int = 96,
        seed: int = 7,
        batch: Batch | None = None,
        said: str = "said",
        report: dict[str, Any] | None = None,
    ) -> tuple[Any, BuiltMix]:
        rng = np.random.default_rng(0)
        agent, agent_index = side("agent", 30, rng, said)
        general, general_index = side("general", 50, rng, said)
        sources = EncodedSources(agent, general, None, agent_index, general_index, report or {})
        plan = plan or Plan(eta=0.25, block=8)
        rows, planned = mix(sources, plan, seed=seed, num_examples=num_examples)
        encoding = Encoding(max_length=4096)
        run = BuiltMix(rows, sources, planned, plan, {}, small_tokenizer, encoding, batch)
        return rows, run

    return make


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data of the user, and a terminal of 120 columns."""
    monkeypatch.delenv("AGENTTUNING_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def server() -> Iterator[Endpoint]:
    """An endpoint that answers every question alike."""
    with serving(Endpoint(reply=lambda messages: ANSWER)) as endpoint:
        yield endpoint
