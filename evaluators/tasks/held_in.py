"""The paper's six held-in tasks, on AgentBench's evaluation splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.errors import SourceNotFoundError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.settings import options as closed_options
from evaluators.evaluator import Evaluator, Record
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.registry import SuiteSettings

_PRIMARY = {"webshop": "reward", "knowledge_graph": "reward"}
"""The paper's figure if it is not the success rate: WebShop's reward, KG's F1."""

_CHANGES = ("INSERT", "UPDATE")


class HeldInEvaluator(AgentTaskEvaluator):
    """A held-in task with the paper's protocol.

    Greedy decoding, 128 tokens a turn and AgentBench's limits on rounds, which the
    environment's dialogue brings. `database` is the mean of three accuracies, of questions,
    insertions and updates, with equal weights (AgentBench's rule).
    """

    def __init__(self, environment: EnvironmentSpec, **settings: Any) -> None:
        super().__init__(environment, primary=_PRIMARY.get(environment.name, "success"), **settings)
        self.macro = environment.name == "database"

    def record(self, trajectory: Trajectory) -> Record:
        """Return an episode's record; for the database with the accuracy it belongs to."""
        record = super().record(trajectory)
        if self.macro:
            kind = trajectory.details.get("kind", "")
            record["group"] = kind if kind in _CHANGES else "SELECT"
        return record

    def about(self) -> dict[str, str]:
        """Add where the tasks come from, if not from AgentBench."""
        facts = super().about()
        if self.name == "knowledge_graph" and facts.get("tasks", "sampled") == "sampled":
            facts["tasks"] = "sampled from a slice of Freebase"
        return facts


@closed_options
class Options:
    """Options of a held-in task beside those of its environment."""

    split: str = Field(default="test", description="Split whose tasks are played.")


def held_in_evaluator(name: str, settings: SuiteSettings) -> Evaluator:
    """Create the evaluator of a held-in task.

    `database` plays AgentBench's tasks if their files are present, and generated ones otherwise;
    `about` states which. AgentBench's knowledge graph needs the whole of Freebase: see
    docs/tasks/held-in/knowledge-graph.md.

    Args:
        name: A key of `HELD_IN`.
        settings: The user's.

    Raises:
        SourceNotFoundError: Its data, or what its sandboxes need, is missing.
        MissingExtraError: An optional dependency is not installed.
        ConfigError: A setting is unknown; or there are only placeholder data, and the option
            `made_up` is not set.
    """
    options = settings.environment_options(name)
    spec = _spec(name, settings, options)
    if name == "database" and not options.keys() - {"dialogue"}:
        agentbench = _spec(name, settings, options | {"tasks": "agentbench"})
        spec = agentbench if _plays(agentbench) else spec
    spec.check_real()
    if missing := spec.dialogue.world.missing(spec.options.get("data")):
        raise SourceNotFoundError(missing if missing.startswith(name) else f"{name}: {missing}")
    return HeldInEvaluator(
        spec,
        split=settings.options_of(name).split,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        oracle=settings.oracle,
    )


def own_evaluator(name: str, settings: SuiteSettings) -> Evaluator:
    """Create the evaluator of an environment that is not the paper's.

    Args:
        name: A reference; see `dataset_builders.environments.references`.
        settings: The user's; the prompt template is the environment's own.

    Raises:
        SourceNotFoundError: Its data is missing.
        ConfigError: A setting is unknown.
    """
    options = settings.environment_options(name)
    if folder := _folder_of(name, settings):
        options = {"data": folder} | options
    spec = load_environment(name, **options)
    if missing := spec.dialogue.world.missing(spec.options.get("data")):
        raise SourceNotFoundError(f"{spec.name}: {missing}")
    return AgentTaskEvaluator(
        spec,
        split=settings.options_of(name).split,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        oracle=settings.oracle,
    )


def _spec(name: str, settings: SuiteSettings, options: dict[str, Any]) -> EnvironmentSpec:
    data = options.get("data") or _folder_of(name, settings)
    return load_environment(
        name,
        prompt=settings.prompt,
        agentinstruct=settings.agentinstruct,
        **{**options, "data": data},
    )


def _folder_of(name: str, settings: SuiteSettings) -> str | None:
    """Return the task's folder within the user's folder of data sets."""
    if settings.data is None:
        return None
    world = load_environment(name).dialogue.world
    places = [Path(settings.data) / each for each in (*world.data_names, world.name)]
    return next((str(place) for place in places if place.is_dir()), None)


def _plays(spec: EnvironmentSpec) -> bool:
    try:
        return bool(spec.task_ids("test"))
    except SourceNotFoundError:
        return False
