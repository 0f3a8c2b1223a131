"""Dialogue for the operating system task, in AgentBench's format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments.base import OracleStep, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.operating_system.environment import (
    ANSWER,
    BASH,
    CUT_CHARS,
    FINISH,
    OUTPUT_CHARS,
    OperatingSystemEnvironment,
)
from dataset_builders.environments.prompts import Prompt

_ACT = re.compile(r"Act:\s*(.+)")
_BLOCK = re.compile(r"```bash\n(.*?)\n```", re.DOTALL)


class OperatingSystemDialogue(Dialogue):
    """Dialogue for the OS task: `Think:`, then `Act:` with bash, finish or answer(...), per turn.

    The opening holds one solved problem, as in AgentBench. A turn that cannot be parsed ends
    the episode.
    """

    world: ClassVar[type[TextEnvironment]] = OperatingSystemEnvironment
    agentinstruct_task: ClassVar[str] = "os"
    round_limit: ClassVar[int] = 8
    tool_form: ClassVar[str] = (
        "dataset_builders.environments.operating_system.tool_dialogue:OperatingSystemToolDialogue"
    )

    def read(self, said: str) -> str | None:
        """Parse a turn by AgentBench's rule.

        The last `Act:` that names an action counts; an answer without parentheses names
        none. All bash blocks of the turn are run, joined by a blank line; without one, nothing is
        run.
        """
        for act in reversed(_ACT.findall(said)):
            kind = act.lower()
            if kind.startswith(BASH):
                return f"{BASH}\n" + "\n\n".join(_BLOCK.findall(said))
            if kind.startswith(FINISH):
                return FINISH
            if kind.startswith(ANSWER):
                content = act[len(ANSWER) :].strip()
                first, last = content.find("("), content.rfind(")")
                if first != -1 and last != -1:
                    return f"{ANSWER}\n{content[first + 1 : last]}"
        return None

    def write(self, move: OracleStep) -> str:
        """Format a step as AgentBench requires."""
        kind, _, content = move.action.partition("\n")
        if kind == BASH:
            act = f"{BASH}\n\n```bash\n{content}\n```"
        else:
            act = FINISH if kind == FINISH else f"{ANSWER}({content})"
        return f"Think: {move.thought}\n\nAct: {act}"

    def feedback(self, observation: str, info: dict[str, Any]) -> str:
        """Format an output: truncated, empty, or unchanged."""
        return shell_feedback(self.prompt, observation, info)

    @classmethod
    def published_pieces(cls, rows: Sequence[Sequence[Message]]) -> dict[str, str]:
        """Extract the text around problems and outputs, including truncated and empty outputs.

        A piece that occurs in no row is omitted. Outputs in the rows come from a terminal; its
        prompt and control characters are part of the output, not of the prompt template.
        """
        users = [[turn.content for turn in row if turn.role == "user"] for row in rows]
        later = [text for turns in users for text in turns[1:]]
        pieces = {"first": _lead([turns[0] for turns in users if turns]) + "{observation}"}
        lead = _lead(later)
        pieces["feedback"] = lead + "{observation}"
        outputs = [text.removeprefix(lead) for text in later if lead and text.startswith(lead)]
        others = Counter(t for t in later if t.count("\n") == 0 and not t.startswith(lead))
        if endings := Counter(t[CUT_CHARS:] for t in outputs if len(t) > OUTPUT_CHARS):
            pieces["truncated"] = endings.most_common(1)[0][0]
        if others:
            pieces["empty"] = others.most_common(1)[0][0]
        return pieces


def shell_feedback(prompt: Prompt, observation: str, info: Mapping[str, Any]) -> str:
    """Format a script's output with the pieces `empty`, `truncated` and `feedback`."""
    if not observation and "empty" in prompt.pieces:
        return prompt.fill("empty")
    if info.get("truncated"):
        observation += prompt.pieces.get("truncated", "")
    return prompt.fill("feedback", observation=observation)


def _lead(texts: Sequence[str]) -> str:
    """Return the most common first line, with the line breaks that always follow it."""
    lines = Counter(text.partition("\n")[0] for text in texts if "\n" in text)
    if not lines:
        return ""
    line = lines.most_common(1)[0][0]
    rests = [text.removeprefix(line) for text in texts if text.startswith(line + "\n")]
    return line + "\n" * min(len(rest) - len(rest.lstrip("\n")) for rest in rests)
