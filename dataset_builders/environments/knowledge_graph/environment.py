"""AgentBench's knowledge graph task (KG), on a slice of Freebase or a SPARQL endpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.environments.base import (
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.data import find_data
from dataset_builders.environments.episode_checks import require_episode
from dataset_builders.environments.knowledge_graph.endpoint import TIMEOUT, EndpointGraph
from dataset_builders.environments.knowledge_graph.facts import (
    LABELS,
    TRIPLES,
    facts_digest,
    load_facts,
)
from dataset_builders.environments.knowledge_graph.fb15k import convert
from dataset_builders.environments.knowledge_graph.graph import Graph, engine_missing, load_graph
from dataset_builders.environments.knowledge_graph.ontology import (
    GraphOntology,
    Ontology,
    read_ontology,
)
from dataset_builders.environments.knowledge_graph.questions import (
    Question,
    check_split,
    read_questions,
)
from dataset_builders.environments.knowledge_graph.sampling import sample_questions
from dataset_builders.environments.knowledge_graph.thoughts import (
    closing_thought,
    thought_before,
)
from dataset_builders.environments.knowledge_graph.tools import Toolbox
from dataset_builders.errors import (
    ConfigError,
    DataError,
    EnvironmentFailureError,
    MissingExtraError,
)
from dataset_builders.storage import cache_folder

FINAL_ANSWER = "Final Answer: #"
NO_VARIABLE = "no_variable"
NO_ACTION = "no_action"

_WHAT = f"a slice of Freebase ({TRIPLES}: head, relation, tail; {LABELS}: entity, name)"
_NEW_VARIABLE = re.compile(r"variable #(\d+),")


@dataclass(frozen=True, slots=True)
class _Episode:
    question: Question
    tools: Toolbox


class KnowledgeGraphEnvironment(TextEnvironment):
    """Questions that are answered by traversing a graph.

    An action is a line with a call of one of the seven tools, such as
    `get_relations(Denton)`, or `Final Answer: #3`. The observation of a call that was
    executed is its result; otherwise it is "" and `info["problem"]` says why: one of
    "bad_arguments", "types_differ", "syntax", "no_call", "no_action" and "no_variable",
    `info["call"]` with what. The score is AgentBench's F1 of the answered entities; 1 is a
    success. `info` carries `kind`. Exit reason: "answered".

    Differences from AgentBench: relations are listed in alphabetical order; an episode
    does not profit from what earlier ones listed; numbers have no neighbours; names from
    AgentBench's Python module beyond the seven tools are no tools.

    Args:
        data: Folder of a slice: `triples.tsv.xz` and `labels.tsv.xz`.
        questions: Folder of AgentBench's questions, which need an endpoint with Freebase;
            its folder `ontology`, if there, with AgentBench's `vocab.json` and `fb_roles`.
            Without it questions are sampled from the slice.
        endpoint: Address of a SPARQL endpoint that holds the graph.
        timeout: Seconds that a query to the endpoint may take.
        render_mode: Gymnasium's; nothing is drawn.

    Raises:
        ConfigError: `questions` without `endpoint`, or an address that cannot be one.
    """

    name: ClassVar[str] = "knowledge_graph"
    data_names: ClassVar[tuple[str, ...]] = ("freebase_slice",)
    idle_action: ClassVar[str] = "get_relations(m.0)"

    def __init__(
        self,
        data: str | Path | None = None,
        questions: str | Path | None = None,
        endpoint: str | None = None,
        timeout: float = TIMEOUT,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(data, render_mode)
        if questions is not None and endpoint is None:
            raise ConfigError(
                f"knowledge_graph: questions {questions}: AgentBench's questions need all of "
                "Freebase: name a SPARQL endpoint that holds it (endpoint)"
            )
        self._questions_folder = None if questions is None else Path(questions)
        self._endpoint = None if endpoint is None else EndpointGraph(endpoint, timeout)
        self._by_split: dict[str, dict[str, Question]] = {}
        self._found: tuple[Graph, Ontology] | None = None
        self._episode: _Episode | None = None

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ids such as "knowledge_graph-train-0000"; AgentBench's end with its qid.

        Raises:
            ConfigError: The split is not "train", "dev" or "test".
            SourceNotFoundError: The slice or the file of questions is missing.
            DataError: A file is invalid.
        """
        return tuple(f"{self.name}-{split}-{rest}" for rest in self._questions(split))

    def state_digest(self) -> str | None:
        """Return the number of variables made so far; see `TextEnvironment.state_digest`."""
        return str(len(self._current().tools.variables))

    def oracle(self) -> Oracle:
        """Yield the gold calls, then the last variable they created.

        Raises:
            EnvironmentFailureError: The question has no gold calls, or one of them fails.
        """
        question = self._current().question
        if not question.calls:
            raise EnvironmentFailureError(f"{self.name}: {self._task_id} has no gold calls")
        variable = -1
        for number, call in enumerate(question.calls):
            observation = yield OracleStep(thought_before(call, number), call)
            if not observation:
                raise EnvironmentFailureError(f"{self.name}: {self._task_id}: {call} has failed")
            if made := _NEW_VARIABLE.match(observation):
                variable = int(made.group(1))
        yield OracleStep(closing_thought(variable), f"{FINAL_ANSWER}{variable}")

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """See `TextEnvironment.missing`; a missing slice is reported by `task_ids`."""
        del data
        return engine_missing()

    @classmethod
    def setup(cls, data: str | Path | None, say: Callable[[str], None]) -> None:
        """Convert fetched files of FB15k-237 to a slice; see `TextEnvironment.setup`."""
        convert(Path(data) if data is not None else cache_folder(cls.name), say)
        folder = find_data(cls.name, data, cls.data_names, (TRIPLES, LABELS), _WHAT)
        say(f"{cls.name}: {len(load_facts(folder).labels):,} named entities in {folder}")
        if missing := cls.missing(data):
            raise MissingExtraError(missing)

    def _begin(self, task_id: str) -> ResetResult:
        split, rest = _parts(self.name, task_id)
        question = self._questions(split).get(rest)
        if question is None:
            raise ConfigError(f"task {task_id!r} is unknown; see task_ids({split!r})")
        if self._found is None:
            self._found = self._graph(), self._ontology()
        self._episode = _Episode(question, Toolbox(*self._found, question.entities))
        names = ", ".join(question.entities)
        observation = f"{question.text}\nEntities: [{names}]"
        return ResetResult(observation, question.text, {"kind": question.kind})

    def _act(self, action: str) -> StepResult:
        episode = self._current()
        info: dict[str, Any] = {"kind": episode.question.kind}
        if action.startswith(FINAL_ANSWER):
            variable = episode.tools.find(action.removeprefix(FINAL_ANSWER))
            if variable is None:
                return StepResult(valid=False, info=info | {"problem": NO_VARIABLE, "call": action})
            score = f1(episode.tools.members(variable), episode.question.answers)
            return StepResult(exit_reason="answered", score=score, info=info)
        if not action:
            return StepResult(valid=False, info=info | {"problem": NO_ACTION, "call": ""})
        reply = episode.tools.call(action)
        if reply.problem:
            info |= {"problem": reply.problem, "call": reply.call}
        return StepResult(reply.text, valid=not reply.problem, info=info)

    def _end(self) -> None:
        self._episode = None

    def _current(self) -> _Episode:
        return require_episode(self._episode)

    def _questions(self, split: str) -> dict[str, Question]:
        check_split(split)
        if split not in self._by_split:
            self._by_split[split] = self._load_questions(split)
        return self._by_split[split]

    def _load_questions(self, split: str) -> dict[str, Question]:
        if self._questions_folder is not None:
            return read_questions(self._questions_folder, split)
        folder = self._slice()
        sampled = _sample(folder, facts_digest(folder), split)
        if not sampled:
            raise DataError(
                f"{folder / TRIPLES}: found no triples to ask about for the split {split!r}, "
                "expected some thousands with names"
            )
        return sampled

    def _slice(self) -> Path:
        return find_data(self.name, self.data, self.data_names, (TRIPLES, LABELS), _WHAT)

    def _graph(self) -> Graph:
        return load_graph(self._slice()) if self._endpoint is None else self._endpoint

    def _ontology(self) -> Ontology:
        folder = self._questions_folder
        given = None if folder is None else read_ontology(folder / "ontology")
        return given or GraphOntology()


@cache
def _sample(folder: Path, digest: str, split: str) -> dict[str, Question]:
    del digest  # Only part of the cache key: a slice may change.
    questions = sample_questions(load_facts(folder), split)
    return {f"{index:04d}": question for index, question in enumerate(questions)}


def _parts(name: str, task_id: str) -> tuple[str, str]:
    found = re.fullmatch(rf"{name}-([a-z]+)-(.+)", task_id)
    if found is None:
        raise ConfigError(f"task {task_id!r} is unknown; expected one such as {name}-train-0000")
    return found.group(1), found.group(2)


def f1(found: frozenset[str], expected: frozenset[str]) -> float:
    """Return the F1 of two sets of answers, in [0, 1]; 0 if they are disjoint."""
    shared = len(found & expected)
    return 2 * shared / (len(found) + len(expected)) if shared else 0.0
