"""GSM8K: grade-school mathematics, solved step by step.

Dataset: Cobbe et al. 2021, 1,319 test questions. Metric: share of right final numbers, parsed by
two rules in parallel. Protocol: AgentTuning's evaluation script's, eight worked examples as chat
turns, greedy, 512 tokens, cut where a next question begins; with our own prompt wording, and with
examples from the train split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from pydantic import Field

from dataset_builders.errors import DataError
from dataset_builders.settings import options
from evaluators.evaluator import Evaluator, Record
from evaluators.models.answer_facts import answer_facts, first_refusal
from evaluators.models.answering import answer_items
from evaluators.models.target import Decoding, EvalTarget
from evaluators.tasks.general.answer_numbers import last_number
from evaluators.tasks.general.data import (
    Row,
    benchmark_folder,
    check_row,
    digest,
    folder_or_hub,
    hub_rows,
    read_rows,
)
from evaluators.tasks.general.few_shot import (
    Answered,
    FewShotPrompt,
    ask_with_shots,
    takes_system,
    transcript,
)
from evaluators.tasks.item_order import fixed_order
from evaluators.tasks.registry import SuiteSettings

TEST_SIZE = 1_319
"""Number of questions in the complete test split."""
MAX_NEW_TOKENS = 512

_INSTRUCTION = (
    "Solve each word problem. Write the calculation down step by step, and end with a "
    'sentence of the form "The answer is N.", where N is a number without a unit.'
)
_STOP = ("Question:",)
_GOLD = re.compile(r"####\s*(-?[\d.,]+)")
_CALCULATOR = re.compile(r"<<[^<>]*>>")


def last_integer(text: str) -> int | None:
    r"""Return the last run of digits (`\d+`), the paper's rule.

    So "20,800" is 800, "3.50" is 50 and "-7" is 7. As in its script, where Python parses the
    digits, one with a leading zero is not a number.
    """
    runs = re.findall(r"\d+", text)
    if not runs or not runs[-1].isascii():
        return None
    digits = runs[-1]
    if len(digits) > 1 and digits[0] == "0" and digits.strip("0"):
        return None
    # Python refuses to parse longer numbers; none that long is right.
    return int(digits) if len(digits) <= 4000 else None


def gold_answer(text: str, where: str = "gsm8k") -> Decimal:
    """Return the number after the marker `####` that ends a reference solution.

    Raises:
        DataError: There is none.
    """
    match = _GOLD.search(text)
    value = match and match[1].replace(",", "").rstrip(".")
    try:
        return Decimal(value or "none")
    except InvalidOperation:
        raise DataError(f"{where}: answer: found no number after ####, expected one") from None


@dataclass(frozen=True, slots=True)
class GsmData:
    """Questions by item, worked examples, and their source."""

    questions: dict[str, Row]
    train: list[Row]
    source: str


class Gsm8kEvaluator(Evaluator):
    """GSM8K; figures: `accuracy` by the paper's rule, `accuracy_corrected` by `last_number`.

    Args:
        data: Questions and worked examples.
        num_shots: Worked examples before each question: the first ones of the train split.
        batch_size: Prompts answered at once; on a server at most.
        max_new_tokens: Limit of an answer below the benchmark's own.

    Raises:
        DataError: There are fewer worked examples, or a solution has no final number.
    """

    suite = "general"
    primary = "accuracy"

    def __init__(
        self,
        data: GsmData,
        num_shots: int = 8,
        batch_size: int = 16,
        max_new_tokens: int | None = None,
    ) -> None:
        if len(data.train) < num_shots:
            raise DataError(
                f"gsm8k: train: found {len(data.train)} worked examples, expected {num_shots}"
            )
        self.name = "gsm8k"
        self._data = data
        self._batch_size = batch_size
        self._limit = min(max_new_tokens or MAX_NEW_TOKENS, MAX_NEW_TOKENS)
        self._shots = tuple(
            _shot(row, f"gsm8k: train: {number}")
            for number, row in enumerate(data.train[:num_shots], 1)
        )
        self._gold = {
            item: gold_answer(row["answer"], item) for item, row in data.questions.items()
        }
        self._items = fixed_order(data.questions)

    def items(self) -> tuple[str, ...]:
        """Return ids such as "test/17", with the row's number in the test split."""
        return self._items

    def about(self) -> dict[str, str]:
        """Return the data and their number, the prompt wording and the rules."""
        rows = [[item, row["question"]] for item, row in self._data.questions.items()]
        whole_set = "complete" if len(rows) == TEST_SIZE else f"{len(rows):,} of {TEST_SIZE:,}"
        return {
            "data": f"{self._data.source}, {whole_set} test questions, sha256 {digest(rows)}",
            "prompt": "own",
            "shots": f"{len(self._shots)} of the train split, sha256 {digest(self._shots)}",
            "decoding": f"greedy, {self._limit} tokens",
            "rule": "accuracy: last integer; accuracy_corrected: number as written",
            "main figure": (
                "accuracy by the paper's rule (the last run of digits), because it is comparable "
                "with the paper's table; accuracy_corrected reads numbers as they are written"
            ),
        }

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure questions; see `Evaluator.measure`."""
        model, system = subject.language_model(), takes_system(subject)
        decoding = Decoding(self._limit, stop=_STOP)

        def answer(batch: Sequence[str]) -> list[Answered]:
            prompts = [
                FewShotPrompt(_INSTRUCTION, self._shots, _asked(self._data.questions[item]), system)
                for item in batch
            ]
            return ask_with_shots(lambda dialogues: model.chat(dialogues, decoding), prompts)

        def take(item: str, answered: Answered) -> None:
            finished(self._record(item, answered))

        answer_items(subject, items, self._batch_size, answer, take)

    def _record(self, item: str, answered: Answered) -> Record:
        answer, gold = answered.answer, self._gold[item]
        record: Record = {"item": item, "scores": {}, "prompt": "own", "error": ""}
        if error := first_refusal([answer]):
            return record | {"error": error}
        if answer is None:
            return record | {"error": "the question and its answer do not fit the context"}
        # A server may have generated past the stop text.
        said = answer.split(_STOP[0])[0]
        record["scores"] = {
            "accuracy": float(last_integer(said) == gold),
            "accuracy_corrected": float(last_number(said) == gold),
        }
        messages = transcript(answered.dialogue[-1:], answer)
        record |= answer_facts([answer])
        return record | {"shots": answered.num_shots, "answer": str(gold), "messages": messages}


def _asked(row: Row) -> str:
    return f"Question: {row['question'].strip()}"


def _shot(row: Row, where: str) -> tuple[str, str]:
    steps = _CALCULATOR.sub("", row["answer"].split("####")[0]).strip()
    return _asked(row), f"{steps}\nThe answer is {gold_answer(row['answer'], where)}."


_FIELDS = {"question": str, "answer": str}


def load_gsm8k(name: str, settings: SuiteSettings, dataset: str) -> GsmData:
    """Load the data from a folder, else from the hub.

    A folder has `test*.jsonl` and `train*.jsonl` as the authors' repository, or
    `main/{test,train}-*.parquet` as the hub's.

    Raises:
        SourceNotFoundError: Neither is available.
        DataError: A file is invalid.
    """

    def find() -> Path:
        try:
            needs = ("main/test-*.parquet", "main/train-*.parquet")
            return benchmark_folder(name, settings, ("gsm8k",), needs, "")
        except FileNotFoundError:
            needs = ("test*.jsonl", "train*.jsonl")
            return benchmark_folder(name, settings, ("gsm8k",), needs, "GSM8K's files")

    def read(folder: Path) -> tuple[list[Row], list[Row]]:
        inner = folder / "main"
        place, pattern = (inner, "-*.parquet") if inner.is_dir() else (folder, "*.jsonl")
        found = [
            [
                row
                for file in sorted(place.glob(f"{split}{pattern}"))
                for row in read_rows(file, _FIELDS)
            ]
            for split in ("test", "train")
        ]
        return found[0], found[1]

    def hub() -> tuple[list[Row], list[Row]]:
        return hub_rows(dataset, "main", "test"), hub_rows(dataset, "main", "train")

    (test, train), kind = folder_or_hub(name, settings, find, read, hub)
    for number, row in enumerate([*test, *train], 1):
        check_row(f"gsm8k:{number}", row, _FIELDS)
    source = f"hub {dataset}" if kind == "hub" else "folder"
    return GsmData({f"test/{n}": row for n, row in enumerate(test)}, train, source)


@options
class Options:
    """Options of GSM8K."""

    data: str | None = Field(default=None, description="Folder of the questions.")
    shots: int = Field(default=8, ge=0, description="Answered questions before each one.")
    hub: str = Field(default="openai/gsm8k", description="Hub dataset, where there is no folder.")


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create GSM8K's evaluator.

    Raises:
        SourceNotFoundError: Neither folder nor hub has the data.
        DataError: A file is invalid.
    """
    given: Options = settings.options_of(name)
    data = load_gsm8k(name, settings, given.hub)
    return Gsm8kEvaluator(data, given.shots, settings.batch_size, settings.max_new_tokens)
