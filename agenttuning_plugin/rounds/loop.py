"""Run rounds: collect, select, train, decide; each phase once, whatever process is killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.evaluation import AgentTaskConfig
from agenttuning_plugin.config.section import AgentTuningConfig
from agenttuning_plugin.console import writing
from agenttuning_plugin.evaluation.devices import free_memory
from agenttuning_plugin.rounds.collecting import Collection, collect_round
from agenttuning_plugin.rounds.deciding import decide, figures_of, floors_of
from agenttuning_plugin.rounds.measuring import (
    base_evaluations,
    evaluators_of,
    last_evaluations,
    measure_start,
    player_of,
)
from agenttuning_plugin.rounds.page import write_page
from agenttuning_plugin.rounds.selecting import agent_sources, select_round
from agenttuning_plugin.rounds.settings import RoundsConfig
from agenttuning_plugin.rounds.state import Facts, RoundsState, locked
from agenttuning_plugin.rounds.training import (
    MODEL,
    Train,
    TrainingJob,
    find_finished,
    merged_model,
    train_round,
)
from dataset_builders.collection.filters import parse_filters
from dataset_builders.errors import ConfigError
from evaluators.evaluator import RECORDS_FILE

BEST = "best"
"""Link in the folder to the last accepted model."""

TRAINED_FIRST = "the recipe, trained first"
"""Start of rounds that train round 0 themselves."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RoundsResult:
    """How rounds ended.

    Attributes:
        best: Folder of the last accepted model.
        accepted: Number of the round that made it; 0 is the start.
        stopped: Why no further round followed; "" if all were accepted.
        rounds: Facts by phase, of each round from 1.
    """

    best: Path
    accepted: int
    stopped: str
    rounds: list[dict[str, Facts]]


def run_rounds(
    config: RoundsConfig,
    section: Mapping[str, Any],
    base_model: str,
    train: Train,
    out: Path,
    *,
    start: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    say: Say = lambda _: None,
) -> RoundsResult:
    """Improve a model on its own successes, round after round; resumes what `out` holds.

    A round plays training tasks with the last accepted model, keeps what the environment rewards,
    trains on it and is accepted only where the held-in figure rose (one-sided paired test) and no
    floor broke; else the rounds end. Source: AgentEvol (arXiv 2406.04151, algorithm 1), with
    rejection sampling (arXiv 2308.01825) of several attempts; the test is ours.

    Args:
        config: What each round plays, keeps and trains on.
        section: The section `agenttuning` of a recipe, as a mapping. Its evaluators have to include
            an `agent_task` of the environment.
        base_model: Folder or hub id of the model that the recipe trains.
        train: Trains a round; `AxolotlTrainer`, or a function of your own.
        out: Folder of everything that is made.
        start: Output folder of a run of the recipe, as round 0; None trains it first.
        settings: What `train` depends on besides the section, by name, such as the learning rate:
            `out` is continued only with the same.
        say: Called with a line about each phase.

    Returns:
        The last accepted model, and what happened in each round.

    Raises:
        ConfigError: A setting cannot work, or differs from what `out` was started with.
        AgentTuningError: A phase failed; the same call goes on there.
    """
    loop = _Rounds(
        config, dict(section), base_model, train, out.absolute(), start, settings or {}, say
    )
    with locked(out):
        return loop.run()


class _Rounds:
    """The rounds of one folder; its arguments are those of `run_rounds`."""

    def __init__(
        self,
        config: RoundsConfig,
        section: dict[str, Any],
        base_model: str,
        train: Train,
        out: Path,
        start: Path | None,
        settings: Mapping[str, Any],
        say: Say,
    ) -> None:
        self._config, self._base_model, self._train = config, base_model, train
        self._out, self._say = out, say
        self._start = start.expanduser().absolute() if start else None
        self._parsed = AgentTuningConfig(**section)
        parse_filters(config.filters)  # Before the start is trained.
        self._player: AgentTaskConfig = player_of(self._parsed, config)
        evaluators = evaluators_of(section["evaluators"], self._parsed, self._player)
        self._section = section | {"evaluators": evaluators}
        agent = section.get("agent") or []
        self._agent = agent if isinstance(agent, list) else [agent]
        wanted = config.fingerprint() | {
            "start": str(self._start or TRAINED_FIRST),
            "base model": base_model,
            "recipe": section,
        }
        self._state = RoundsState(out, {**wanted, **settings})

    def run(self) -> RoundsResult:
        """Run the rounds that are not done yet."""
        model, accepted, stopped = self._begin(), 0, ""
        self._point(model)
        for number in range(1, self._config.rounds + 1):
            facts = self._round(number, accepted, model)
            write_page(self._out, self._state)
            if facts["accepted"]:
                model, accepted = self._folder(number) / MODEL, number
                self._point(model)
                self._say(f"round {number}: accepted")
                continue
            stopped = f"round {number}: refused: {'; '.join(facts['reasons'])}"
            self._say(stopped)
            break
        write_page(self._out, self._state)
        return RoundsResult(self._out / BEST, accepted, stopped, self._state.rounds)

    def _folder(self, number: int) -> Path:
        return self._out / f"round-{number}"

    def _begin(self) -> Path:
        """Train the start if none is given, and measure it; returns its folder."""
        phase, folder = self._state.start_phase, self._folder(0)
        folder.mkdir(parents=True, exist_ok=True)
        model = Path(phase("train", lambda: self._train_start(folder))["model"])
        phase("measure", lambda: self._measure_start(model, folder))
        return model

    def _train_start(self, folder: Path) -> Facts:
        if self._start is not None:
            find_finished(self._start)
            self._check_floors(self._start)
            return {"model": str(self._start)}
        job = TrainingJob(0, self._section, self._base_model, folder / MODEL, folder)
        self._say("round 0: training the recipe as it is")
        train_round(job, self._train)
        self._check_floors(job.out)
        return {"model": str(job.out)}

    def _measure_start(self, model: Path, folder: Path) -> Facts:
        self._say(f"round 0: evaluating {model}")
        measure_start(model, self._player, folder)
        free_memory()
        return {
            "base_figures": figures_of(base_evaluations(folder)),
            "figures": figures_of(last_evaluations(folder)),
        }

    def _check_floors(self, model: Path) -> None:
        """Check that the start was measured where rounds may not be worse: it is not here."""
        known = last_evaluations(model) if (model / RECORDS_FILE).is_file() else {}
        needed = {floor.evaluator for floor in self._parsed.evaluation.floors}
        needed |= {each.key for each in self._parsed.evaluators if each.type == "general_loss"}
        if missing := sorted(needed - known.keys() - {self._player.key}):
            raise ConfigError(
                f"{model}: found no evaluation of {', '.join(missing)}, expected one: train the "
                "start with the recipe's evaluators, or let rounds train it"
            )

    def _round(self, number: int, accepted: int, model: Path) -> Facts:
        phase, folder = partial(self._state.phase, number), self._folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        phase("collect", lambda: self._collect(number, model))
        write_page(self._out, self._state)
        selected = phase("select", lambda: self._select(number))
        if not selected["new"]:
            reason = f"nothing new was kept: {selected['dropped'] or 'no episode was kept'}"
            return phase("decide", lambda: {"accepted": False, "reasons": [reason]})
        phase("train", lambda: self._train_round(number, accepted, model, selected))
        return phase("decide", lambda: self._decide(number, accepted))

    def _collection(self, number: int, model: Path) -> Collection:
        return Collection(self._config, self._player, number, model, self._folder(number))

    def _collect(self, number: int, model: Path) -> Facts:
        self._say(f"round {number}: collecting with {model}")
        facts = collect_round(self._collection(number, model), self._say)
        free_memory()
        self._say(f"round {number}: kept {facts['kept']} of {facts['tasks']} tasks")
        return facts

    def _select(self, number: int) -> Facts:
        rounds = self._state.rounds[:number]
        collections = [
            self._collection(each, Path(facts["collect"]["model"]))
            for each, facts in enumerate(rounds, 1)
        ]
        return select_round(self._config, collections, self._agent)

    def _train_round(self, number: int, accepted: int, model: Path, selected: Facts) -> Facts:
        folder = self._folder(number)
        base = self._base_model
        if self._config.train_from == "last":
            base = str(merged_model(model, self._folder(accepted)))
        agent = agent_sources(self._config, selected, self._agent)
        section = self._section | {"agent": agent, "evaluators": self._evaluators()}
        self._say(
            f"round {number}: training from {base} on {selected['rows']} conversations of its own"
        )
        job = TrainingJob(number, section, base, folder / MODEL, folder)
        train_round(job, self._train)
        free_memory()
        return {"base": base, "figures": figures_of(last_evaluations(job.out))}

    def _evaluators(self) -> list[dict[str, Any]]:
        """The evaluators without a run before the first step, which round 0 has measured."""
        needed = {floor.evaluator for floor in self._parsed.evaluation.floors}
        found = []
        for given, each in zip(self._section["evaluators"], self._parsed.evaluators, strict=True):
            changes: dict[str, Any] = {} if each.key in needed else {"at_start": False}
            if each.type == "general_kl" and self._config.train_from == "last":
                # By default it is the model that a round trains, here the last one.
                base = str(Path(self._base_model).expanduser())  # or a hub id
                changes["reference"] = each.reference or base
            found.append({**given, **changes})
        return found

    def _decide(self, number: int, accepted: int) -> Facts:
        start = self._folder(0)
        before = start if accepted == 0 else self._folder(accepted) / MODEL
        base, last = base_evaluations(start), last_evaluations(before)
        after = last_evaluations(self._folder(number) / MODEL)
        # A figure that the round's evaluation failed to measure keeps its floor, and breaks it.
        own = {each.key for each in self._parsed.evaluators if each.at_end}
        known = {name: row for name, row in (base | last).items() if name in own} | after
        return decide(
            self._player.key,
            base,
            last,
            after,
            alpha=self._config.alpha,
            floors=floors_of(self._parsed.evaluation, known),
        )

    def _point(self, model: Path) -> None:
        """Let `best` link to a model, atomically."""
        link, part = self._out / BEST, self._out / f".{BEST}.part"
        with writing(link):
            if link.exists() and not link.is_symlink():
                raise ConfigError(f"{link}: found a folder, expected a link that rounds made")
            part.unlink(missing_ok=True)
            inside = model.is_relative_to(self._out)
            part.symlink_to(os.path.relpath(model, self._out) if inside else model)
            part.replace(link)
