"""The program in an answer to a HumanEval task, in the forms that models write."""

from __future__ import annotations

from typing import Any

import pytest

from evaluators.tasks.general.code_answers import program_in
from evaluators.tasks.general.code_blocks import fenced_blocks

PROMPT = (
    "from typing import List\n\n\ndef scale(x: float) -> float:\n"
    '    """Double it.\n    >>> scale(2)\n    4\n    """\n'
)
DEF = "def scale(x: float) -> float:\n    return x * 2"


def fenced(code: str, fence: str = "```", kind: str = "python") -> str:
    return f"Here it is:\n{fence}{kind}\n{code}\n{fence}\nDone."


def in_turn(*codes: str) -> str:
    return "\nThat can be better:\n".join(map(fenced, codes))


FORMS = {
    "plain": fenced(DEF),
    "carriage returns": fenced(DEF).replace("\n", "\r\n"),
    "tildes": fenced(DEF, "~~~"),
    "four ticks": fenced(DEF, "````"),
    "nothing closes it": f"```python\n{DEF}\n",
    "a fence within a docstring": fenced(
        'def scale(x):\n    """As in:\n    ```\n    scale(2)\n    ```\n    """\n    return x * 2'
    ),
    "a fence with a language within a docstring": fenced(
        'def scale(x):\n    """As:\n    ```python\n    scale(2)\n    ```\n    """\n    return x * 2'
    ),
    "a fence within a string": fenced('MARK = "```"\n\ndef scale(x):\n    return x * 2'),
    "another block first": f"```bash\npip install x\n```\n{fenced(DEF)}",
    "an example first": f"Use:\n```python\nscale(3.5)\n```\n{fenced(DEF)}",
    "a corrected draft": in_turn("def scale(x):\n    return x", DEF),
    "a corrected class": in_turn(
        "class Solution:\n    def scale(self, x):\n        return x",
        "class Solution:\n    def scale(self, x):\n        return x * 2",
    ),
    "a shorter one that is cut": f"{fenced(DEF)}\nShorter:\n```python\ndef scale(x):\n    ret(",
    "a correction that uses the draft's helper": in_turn(
        "N = 2\n\ndef f(x):\n    return x * N\n\ndef scale(x):\n    return f(0)",
        "def scale(x):\n    return f(x)",
    ),
    "a helper in a block of its own": in_turn(
        "def f(x):\n    return x * 2", "def scale(x):\n    return f(x)"
    ),
    "an example that imports it": in_turn(DEF, "from answer import scale\nprint(scale(2))"),
    "its signature below": in_turn(DEF, 'def scale(x):\n    """It."""\n    ...'),
    "its signature raises below": in_turn(DEF, "def scale(x):\n    raise NotImplementedError()"),
    "a list item": "1. So:\n\n   ```python\n   def scale(x):\n       return x * 2\n   ```",
    "a lambda": fenced("scale = lambda x: x * 2"),
    "an unfenced lambda": "scale = lambda x: x * 2\n\nIt doubles its argument.",
    "an annotated lambda": fenced("scale: object = lambda x: x * 2"),
    "a class": fenced("class Solution:\n    def scale(self, x):\n        return x * 2"),
    "a class with a helper": fenced(
        "class Solution:\n    def twice(self, x):\n        return x * 2\n"
        "    def scale(self, x):\n        return self.twice(x)"
    ),
    "an unfenced class": "class S:\n    def scale(self, x):\n        return x * 2\n\nDone.",
    "an unfenced constant": "def scale(x):\n    return f(x)\n\nN=2\ndef f(x):\n    return x * N",
    "an unfenced constant before": "TWO=2\ndef scale(x):\n    return x * TWO\n\nThat is all.",
    "an unfenced table": "def scale(x):\n    return T['k'] * x\n\nT = {\n    'k': 2,\n}\n\nSo.",
    "prose between": (
        "First a helper:\n\ndef f(x):\n    return x * 2\n\nThen the function:\n\n"
        "def scale(x):\n    return f(x)\n\nThis calls the helper."
    ),
    "an alias": fenced("def double(x):\n    return x * 2\n\nscale = double"),
    "input in an example": fenced(f"{DEF}\n\nx = float(input())\nprint(scale(x))"),
    "a failing example": fenced(f"{DEF}\n\nassert scale(2) == 5"),
    "a main guard": fenced(f"{DEF}\n\nif __name__ == '__main__':\n    print(scale(input()))"),
    "a limit that is set": fenced(f"import sys\nsys.setrecursionlimit(9000)\n\n{DEF}"),
    "a table filled below": fenced(
        "T = {}\n\ndef scale(x):\n    return T['k'] * x\n\nT['k'] = 2\n"
    ),
    "a table filled by a method": fenced(
        "T = {}\n\ndef scale(x):\n    return T['k'] * x\n\nT.update(k=2)\n"
    ),
    "an import that may fail": fenced(
        "try:\n    import nothing_of_the_kind as n\nexcept ImportError:\n    n = 2\n\n"
        "def scale(x):\n    return x * n"
    ),
    "a global": fenced("def scale(x):\n    global N\n    N = 2\n    return x * N"),
    "a decorator": fenced(
        "import functools\n\n\ndef same(f):\n    return f\n\n@same\ndef scale(x):\n    return x * 2"
    ),
    "the whole prompt": fenced(PROMPT + "    return x * 2"),
    "a body": "    return x * 2",
    "a stripped body": "return x * 2",
    "a body and prose": "    return x * 2\n\nThis doubles the argument.",
    "a stripped body and prose": "return x * 2\n\nThis doubles the argument, of course.",
    "a fenced body with tabs": fenced("\tif x:\n\t\treturn x * 2\n\treturn x"),
    "a body of two blanks": fenced("  if x:\n    return x * 2\n  return x"),
    "a fence on the first line": "```def scale(x):\n    return x * 2\n```",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_right_program_is_found(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_input(*_: object) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", no_input)
    names: dict[str, Any] = {"__name__": "program"}
    exec(program_in(FORMS[form], PROMPT, "scale"), names)
    assert names["scale"](2) == 4


@pytest.mark.parametrize(
    "answer",
    ["", "I cannot do that.", fenced("def other(x):\n    return x * 2"), fenced("def scale(x):")],
)
def test_what_defines_no_function_passes_nothing(answer: str) -> None:
    names: dict[str, Any] = {}
    try:
        exec(program_in(answer, PROMPT, "scale"), names)
        result = names["scale"](2)
    except SyntaxError:
        return
    assert result is None


def test_blocks_are_the_fences_code_in_order() -> None:
    answer = f"{fenced('pip x', kind='bash')}\nthen\n{fenced(DEF)}"
    assert fenced_blocks(answer) == ["pip x\n", f"{DEF}\n"]
    assert fenced_blocks("```python\n" * 3000)  # as a model that repeats itself


def test_a_long_answer_of_no_python_takes_no_time() -> None:
    answer = "\n".join(f"The number {n} is not a (program" for n in range(400))
    assert program_in(answer, PROMPT, "scale").startswith(PROMPT)
