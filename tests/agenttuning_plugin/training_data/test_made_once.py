"""Of several processes that need a source at the same time, one makes it and the others wait."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.config.section import AgentTuningConfig
from agenttuning_plugin.training_data import made_sources
from agenttuning_plugin.training_data.made_sources import MakeContext, make_sources
from dataset_builders.sources.made import write_provenance


class SlowMaker:
    """Writes which process made the source, slowly."""

    def inputs(self, recipe: Any, context: MakeContext) -> dict[str, Any]:
        return {"prompts": recipe.prompts}

    def make(self, recipe: Any, context: MakeContext, folder: Path) -> None:
        with (context.folder / "log").open("a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        write_provenance(folder, {"kind": "self_replay"})


def test_one_process_makes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(made_sources, "maker_of", lambda kind: SlowMaker())
    section = AgentTuningConfig(agent="a", general={"self_replay": {"prompts": "b"}})
    context = MakeContext(tmp_path, "", None)
    fork = multiprocessing.get_context("fork")
    found: Any = fork.SimpleQueue()

    def make() -> None:
        found.put(make_sources(section, context).general[0].path)

    processes = [fork.Process(target=make) for _ in range(4)]
    for process in processes:
        process.start()
    paths = {found.get() for _ in processes}
    for process in processes:
        process.join()
    assert len(paths) == 1
    assert len((tmp_path / "log").read_text("utf-8").splitlines()) == 1
