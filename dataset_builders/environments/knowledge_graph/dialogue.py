"""Dialogue for the knowledge graph task, in AgentBench's format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.knowledge_graph.environment import (
    FINAL_ANSWER,
    NO_ACTION,
    NO_VARIABLE,
    KnowledgeGraphEnvironment,
)
from dataset_builders.environments.knowledge_graph.tools import (
    BAD_ARGUMENTS,
    NO_CALL,
    TYPES_DIFFER,
)

_ANSWER = re.compile(r"(?:Find|Final) Answer: #(\d+)")
_ACTION = re.compile(r"Action.*?:")
_FAILED_CALL = re.compile(r"(\w+)\(.*\)(?= cannot be executed)", re.DOTALL)


class GraphDialogue(Dialogue):
    """Dialogue for the KG task: a thought, then one tool call or the final answer, per turn.

    A turn that cannot be parsed or executed costs a round and gets an error message as observation,
    as in AgentBench. Text that a model writes after `Observation:` is hallucinated: it is cut off
    before the turn is parsed and stored.

    AgentBench reports a syntax error only before the first parsable call of an episode; here it is
    always reported.
    """

    world: ClassVar[type[TextEnvironment]] = KnowledgeGraphEnvironment
    agentinstruct_task: ClassVar[str] = "kg"
    round_limit: ClassVar[int] = 15

    def kept(self, turn: str) -> str:
        """Return the turn up to a hallucinated observation, with escaped underscores unescaped.

        As in AgentBench nothing is left of a turn that begins with an observation; the
        filter `empty_turn` drops such a trajectory.
        """
        return turn.split("Observation:")[0].replace("\\_", "_")

    def read(self, said: str) -> str | None:
        """Parse a turn by AgentBench's rule.

        A final answer anywhere takes precedence; otherwise the first line that begins with `Action`
        and has a colon counts. None where the turn has neither.
        """
        said = said.split("Observation:")[0].replace("\\_", "_")
        if answer := _ANSWER.search(said):
            return FINAL_ANSWER + answer.group(1)
        for line in said.split("\n"):
            if action := _ACTION.match(line):
                # Calls are searched in the whole line.
                read = line if "(" in action.group() else line[action.end() :]
                return read.strip() or ":"
        return None

    def write(self, move: OracleStep) -> str:
        """Format a step as AgentBench requires."""
        label = "" if move.action.startswith(FINAL_ANSWER) else "Action: "
        return f"Thought: {move.thought}\n{label}{move.action}"

    def feedback(self, observation: str, info: dict[str, Any]) -> str:
        """Format a result, or what was wrong with the turn."""
        if problem := info.get("problem"):
            return self.prompt.fill(problem, call=info["call"])
        return self.prompt.fill("feedback", observation=observation)

    def unparsable(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Report that the turn has no action; the episode continues."""
        observation, reward, over, _, info = self.env.step("")
        return self.conclude(turn, observation, reward, over, info)

    @classmethod
    def published_pieces(cls, rows: Sequence[Sequence[Message]]) -> dict[str, str]:
        """Extract the text around observations; built-in text for errors that no row shows."""
        pieces = dict(cls.own_prompt().pieces)
        beginnings = Counter(row[0].content.partition(": ")[0] for row in rows)
        pieces["first"] = f"{beginnings.most_common(1)[0][0]}: {{observation}}"
        turns = [turn.content for row in rows for turn in row[1:] if turn.role == "user"]
        pieces["feedback"] = _around(turns, "{observation}")
        for turn in turns:
            if failed := _FAILED_CALL.match(turn):
                differ = failed.group(1) == "intersection"
                pieces[TYPES_DIFFER if differ else BAD_ARGUMENTS] = "{call}" + turn[failed.end() :]
        return pieces | _answers_to(rows)


def _around(turns: Sequence[str], slot: str) -> str:
    """Return the text before the list or the variable that a call returns."""
    for turn in turns:
        found = re.fullmatch(r"(.*?)(\[.*\]|variable #\d+,.*)", turn, re.DOTALL)
        if found and not _FAILED_CALL.match(turn):
            return found.group(1) + slot
    return slot


def _answers_to(rows: Sequence[Sequence[Message]]) -> dict[str, str]:
    """Return the replies to turns with nothing to execute, if equal for all such turns."""
    has_action = re.compile(rf"^{_ACTION.pattern}", re.MULTILINE)
    kinds: dict[str, Callable[[str], bool]] = {
        NO_VARIABLE: lambda turn: bool(_ANSWER.search(turn)),
        NO_ACTION: lambda turn: not _ANSWER.search(turn) and not has_action.search(turn),
        NO_CALL: lambda turn: bool(re.search(rf"^{_ACTION.pattern}[^(]*$", turn, re.MULTILINE)),
    }
    found = {}
    for row in rows:
        for said, answer in pairwise(row):
            if said.role == "assistant" and answer.role == "user":
                matching = (name for name, holds in kinds.items() if holds(said.content))
                if name := next(matching, ""):
                    found[name] = answer.content
    return found
