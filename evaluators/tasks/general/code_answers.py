"""Extract the program from a chat model's answer to a HumanEval task."""

from __future__ import annotations

import re
import textwrap

from dataset_builders.reasoning import spoken
from evaluators.tasks.general.code_blocks import fenced_blocks, unfenced_code
from evaluators.tasks.general.code_parts import last_definition, needed, parsed


def preamble(prompt: str, entry_point: str) -> str:
    """Return the imports and helpers before the function in a task's prompt."""
    place = re.search(rf"^def {re.escape(entry_point)}\(", prompt, re.MULTILINE)
    return prompt[: place.start()] if place else ""


def program_in(answer: str, prompt: str, entry_point: str) -> str:
    """Return the program that an answer gives.

    The code is taken from the last fenced block that defines the function, for a model that
    corrects itself does so below; helpers may be in earlier blocks. A block that only imports the
    function, or only has its signature, does not define it. Without a fence the code is taken from
    the lines of the answer that are Python. A lambda and a method of a class define it, too. Code
    that defines the function follows the prompt's own imports and helpers, for models leave them
    out, and loses what the function does not need, such as examples of its use. Other code is taken
    as the rest of the prompt's function.

    Args:
        answer: The model's turn.
        prompt: The task's: imports, helpers, signature and docstring.
        entry_point: The function's name.
    """
    answer = spoken(answer)
    blocks = fenced_blocks(answer)
    # A block within a list item is indented as a whole.
    codes = [*blocks, *map(textwrap.dedent, blocks)] if blocks else [unfenced_code(answer)]
    before = preamble(prompt, entry_point)
    if tree := last_definition(blocks or codes, entry_point):
        return _after(before, needed(tree, entry_point))
    broken = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b", re.MULTILINE)
    for code in codes if blocks else [answer]:
        if found := broken.search(code):  # Not Python; the check reports the error.
            return _after(before, code if blocks else code[found.start() :])
    return _completed(prompt, blocks or [answer])


def _completed(prompt: str, codes: list[str]) -> str:
    """Complete the prompt's function with the first code that can be its body; drop prose below."""
    for code in codes:
        lines = code.strip("\n").split("\n")
        for end in range(len(lines), 0, -1):
            program = prompt + _body("\n".join(lines[:end]))
            if parsed(program):
                return program
    return prompt + _body(codes[0])


def _after(before: str, code: str) -> str:
    # `from __future__` imports must stay first.
    lines = code.split("\n")
    future = [line for line in lines if line.startswith("from __future__ ")]
    return "\n".join([*future, before, *(line for line in lines if line not in future)])


def _body(code: str) -> str:
    """Return lines as the body of a function, indented if necessary."""
    code = re.sub(r"^[ \t]+", lambda found: found[0].expandtabs(4), code.strip("\n"), flags=re.M)
    if code[:1] == " ":
        whole = textwrap.dedent(code)
        # Prose or a helper may follow, unindented.
        return textwrap.indent(whole, "    ") + "\n" if whole[:1] != " " else f"{code}\n"
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
