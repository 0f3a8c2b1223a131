"""Few-shot examples of ReAct from a user's file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dataset_builders.conversation import Message
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import DataError, SourceNotFoundError

EXAMPLE_NAME = "REACT_EXAMPLE"
"""Variable of AgentTuning's `fewshots.py` that holds its examples."""

_PART = re.compile(r"^(Question|Thought|Action|Observation)(?: ?\d+)?: *", re.MULTILINE)


def with_demonstrations(prompt: Prompt, file: str | Path | None) -> Prompt:
    """Replace the examples of a prompt by those of a file; the instruction stays.

    Args:
        prompt: Its opening begins with the instruction and an acknowledgement.
        file: Text in ReAct's form (`Question:`, `Thought 1:`, `Action 1:`, `Observation 1:`),
            or a Python file that assigns such text to `REACT_EXAMPLE`, which is not run.

    Raises:
        SourceNotFoundError: There is no such file.
        DataError: It holds no example in this form.
    """
    if file is None:
        return prompt
    path = Path(file)
    if not path.is_file():
        raise SourceNotFoundError(f"hotpot_qa: demonstrations: there is no file {path}")
    text = path.read_text("utf-8")
    turns = tuple(_turns(_constant(text, path) if path.suffix == ".py" else text))
    if not any(turn.role == "assistant" for turn in turns):
        raise DataError(f"{path}: found no worked example, expected Question, Thought and Action")
    return replace(prompt, name="file", opening=prompt.opening[:2] + turns)


def react_text(turns: Sequence[Message]) -> str:
    """Format a conversation's turns as text with numbered steps, ReAct's own format."""
    lines: list[str] = []
    step = 0
    for turn in turns:
        if turn.role == "assistant":
            step += 1
            thought, _, action = turn.content.partition("\nAction:")
            thought = thought.removeprefix("Thought:").strip()
            lines += [f"Thought {step}: {_line(thought)}", f"Action {step}: {_line(action)}"]
        elif turn.content.startswith("Question:"):
            step = 0
            lines += ["", turn.content] if lines else [turn.content]
        else:
            lines.append(f"Observation {step}: {_line(turn.content.removeprefix('Observation:'))}")
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split())


def _turns(text: str) -> Iterator[Message]:
    thought = ""
    parts = _PART.split(text)[1:]
    for name, content in zip(parts[::2], parts[1::2], strict=True):
        said = _line(content)
        if name == "Thought":
            thought = said
        elif name == "Action":
            yield Message("assistant", f"Thought: {thought}\nAction: {said}")
        else:
            yield Message("user", f"{name}: {said}")


def _constant(text: str, path: Path) -> str:
    for node in ast.parse(text).body:
        names = [t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)]
        if EXAMPLE_NAME in names and isinstance(node, ast.Assign):
            return str(ast.literal_eval(node.value))
    raise DataError(f"{path}: found no {EXAMPLE_NAME}, expected its text")
