"""Logic of `agenttuning env`: status and validation of environments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset_builders.environments import HELD_IN, EnvironmentSpec, load_environment
from dataset_builders.environments.base import TextEnvironment
from dataset_builders.environments.references import declared
from dataset_builders.errors import AgentTuningError, ConfigError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.validation import Validation, validate
from evaluators.tasks.held_out import HELD_OUT, load_held_out

_COMMAND = re.compile(r"(?:agenttuning|pip|apt-get) \S.*\Z")
"""The command at the end of a message that says what is missing."""

SPLITS = ("train", "dev", "test")
ALL = "all"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether an environment can be played here.

    Attributes:
        name: Its registry name.
        missing: What is missing, in one line with the remedy; "" if nothing is.
        tasks: Number of tasks by available split.
        stand_in: Placeholder data in place of its data, such as "made-up pages", or "".
        held_out: Whether it is for evaluation only: it never generates training data.
    """

    name: str
    missing: str
    tasks: dict[str, int] = field(default_factory=dict)
    stand_in: str = ""
    held_out: bool = False

    @property
    def command(self) -> str:
        """The command that makes it ready, or brings it nearer to that; "" if there is none."""
        if self.stand_in and not self.missing:
            return f"agenttuning env setup {self.name}"
        found = _COMMAND.search(self.missing)
        return found[0] if found else ""

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        facts: dict[str, Any] = {
            "ready": not self.missing,
            "missing": self.missing,
            "tasks": self.tasks,
        }
        further = {
            "only": self.stand_in,
            "command": self.command,
            "evaluation_only": self.held_out,
        }
        return facts | {key: value for key, value in further.items() if value}


def resolve_environments(
    name: str,
    data: str | None,
    prompt: str,
    agentinstruct: str | None,
    options: Mapping[str, Any],
) -> list[EnvironmentSpec]:
    """Return the environment with a name, or all held-in environments for "all".

    Args:
        name: A registry name, a reference, or "all".
        data: Folder of its data; for "all" a folder of such folders.
        prompt: "own" or "published".
        agentinstruct: AgentInstruct copy with the published prompts.
        options: Options of the environment's class.

    Raises:
        ConfigError: The name is unknown, or options are given for "all".
    """
    if name == ALL and options:
        raise ConfigError("--option: is for one environment; give its name instead of all")
    specs = []
    for each in sorted(HELD_IN) if name == ALL else (name,):
        spec = load_environment(each, prompt=prompt, agentinstruct=agentinstruct)
        folder = data_of(spec.dialogue.world, data) if name == ALL else data
        given = {**options, **({"data": folder} if folder is not None else {})}
        specs.append(replace(spec, options=given))
    return specs


def data_of(world: type[TextEnvironment], folder: str | None) -> str | None:
    """Return an environment's folder within a folder of data sets; None if there is none."""
    places = [Path(folder) / name for name in (*world.data_names, world.name)] if folder else []
    return next((str(place) for place in places if place.is_dir()), None)


def environment_status(folder: str | None = None) -> list[Readiness]:
    """Return the status of every environment, those of installed packages included.

    Held-in ones come first, held-out ones last.

    Args:
        folder: Folder with one folder of data for each environment.
    """
    found = []
    for name in [*sorted(HELD_IN), *sorted(declared())]:
        try:
            world = load_environment(name).dialogue.world
            data = data_of(world, folder)
            found.append(_readiness(load_environment(name, data=data), world.missing(data)))
        except ConfigError as error:
            if name in HELD_IN:
                raise
            # Another package's mistake must not hide the others.
            found.append(Readiness(name, str(error)))
    return found + [_held_out_readiness(name, folder) for name in sorted(HELD_OUT)]


def _held_out_readiness(name: str, folder: str | None) -> Readiness:
    """Return what is missing; tasks are not counted, because some start a program for that."""
    world = load_held_out(name).dialogue.world
    return Readiness(name, world.missing(data_of(world, folder)), held_out=True)


def _readiness(environment: EnvironmentSpec, missing: str) -> Readiness:
    if missing:
        return Readiness(environment.name, missing)
    tasks, problem = _sizes(environment, SPLITS)
    return Readiness(environment.name, "" if tasks else str(problem), tasks, environment.stand_in())


def _sizes(
    environment: EnvironmentSpec, splits: Sequence[str]
) -> tuple[dict[str, int], AgentTuningError | None]:
    """Count the tasks of available splits, with the error of the first unavailable one."""
    sizes: dict[str, int] = {}
    problem: AgentTuningError | None = None
    for split in splits:
        try:
            number = len(environment.task_ids(split))
        except AgentTuningError as error:  # A split that this copy of the data lacks.
            problem = problem or error
            continue
        if number:
            sizes[split] = number
        else:
            problem = problem or ConfigError(f"{environment.name}: split {split!r} has no task")
    return sizes, problem


def validate_environment(
    environment: EnvironmentSpec,
    split: str | None,
    num_tasks: int,
    watch: Callable[[int], Callable[[Trajectory], None]],
) -> Validation:
    """Play an environment with its oracle and with an idle agent.

    Args:
        environment: The environment.
        split: Split to play; None: the first available of train, dev and test.
        num_tasks: Tasks to play, spread over the split.
        watch: Called with the number of episodes; returns a function called after each.

    Raises:
        AgentTuningError: The split, its data or an optional dependency is missing.
    """
    environment.check_splits()
    sizes, problem = _sizes(environment, (split,) if split else SPLITS)
    if not sizes:
        raise problem or ConfigError(f"{environment.name}: no split has a task")
    played, size = next(iter(sizes.items()))
    watcher = watch(2 * min(num_tasks, size))
    return validate(environment, split=played, num_tasks=num_tasks, on_progress=watcher)


def validation_json(validation: Validation) -> dict[str, Any]:
    """Return a validation as JSON-ready values."""
    facts = asdict(validation)
    facts.pop("environment")
    return {"ok": validation.ok, **facts}
