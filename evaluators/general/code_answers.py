"""The program in a chat model's answer to a HumanEval task."""

from __future__ import annotations

import re
import textwrap

from dataset_builders.reasoning import spoken

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_START = re.compile(
    r"^(?:from \S+ import|import \w|(?:async )?def |class \w+[:(]|@\w)", re.MULTILINE
)
# What may stand at the left margin of a program, among answers that have no fence.
_MARGIN = re.compile(
    _START.pattern + r"|[#)\]}\"']|\w+(?:: [^=]+)? = |(?:if|for|while|try|with)\b.*:"
)


def preamble(prompt: str, entry_point: str) -> str:
    """What a task's prompt has before its function: imports and helpers."""
    place = re.search(rf"^def {re.escape(entry_point)}\(", prompt, re.MULTILINE)
    return prompt[: place.start()] if place else ""


def program_in(answer: str, prompt: str, entry_point: str) -> str:
    """The program that an answer gives.

    The code is taken from the first fenced block that defines the function, else from the
    first block, else from the whole answer; a block that nothing closes counts. Code that
    defines the function follows the prompt's own imports and helpers, for models leave them
    out; code that does not is taken as the rest of the prompt's function.

    Args:
        answer: The model's turn.
        prompt: The task's: imports, helpers, signature and docstring.
        entry_point: The function's name.
    """
    answer = spoken(answer)
    defines = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b", re.MULTILINE)
    blocks = [match[1] for match in _FENCE.finditer(answer)]
    # A block within a list item is indented as a whole.
    for code in (*blocks, *map(textwrap.dedent, blocks)):
        if defines.search(code):
            return _after(preamble(prompt, entry_point), code)
    if not blocks and defines.search(answer):
        return _after(preamble(prompt, entry_point), _unfenced(answer))
    return prompt + _body(blocks[0] if blocks else answer)


def _unfenced(answer: str) -> str:
    """The code of an answer that may have prose before and after it."""
    start = _START.search(answer)
    lines = answer[start.start() if start else 0 :].split("\n")
    prose = (
        number for number, line in enumerate(lines) if line[:1].strip() and not _MARGIN.match(line)
    )
    return "\n".join(lines[: next(prose, len(lines))])


def _after(before: str, code: str) -> str:
    # What an answer imports from the future has to stay in front.
    lines = code.split("\n")
    future = [line for line in lines if line.startswith("from __future__ ")]
    return "\n".join([*future, before, *(line for line in lines if line not in future)])


def _body(code: str) -> str:
    """Lines as the body of a function, indented if they are not."""
    code = code.strip("\n")
    if code[:1] in (" ", "\t"):
        return f"{code}\n"
    # Blanks around an answer are removed, and with them the first line's indent: then what
    # follows is further in than anything that could follow it at the margin.
    first, *rest = [line for line in code.split("\n") if line.strip()] or [""]
    indents = [len(line) - len(line.lstrip()) for line in rest] or [0]
    least = min(indents)
    if first.rstrip().endswith((":", "(", "[", "{", ",")) and least == indents[0]:
        least = 4 if least >= 8 else 0
    if least:
        return f"{' ' * least}{code}\n"
    return textwrap.indent(code, "    ") + "\n"
