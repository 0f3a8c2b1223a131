"""MMLU: multiple-choice knowledge of 57 subjects, by the probability of the answer letters.

Dataset: Hendrycks et al. 2021, 14,042 test questions, five worked ones per subject. Metric:
accuracy over all questions (micro average), as AgentTuning reports. Protocol: its evaluation
script's, five shots as chat turns, argmax over the next token after the generation prompt,
at most 2,048 tokens; with our own prompt wording, and without its prefilled answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pydantic import Field

from dataset_builders.errors import ConfigError
from dataset_builders.settings import options
from evaluators.evaluator import Evaluator, Record
from evaluators.models.answering import answer_items
from evaluators.models.interface import Values
from evaluators.models.target import EvalTarget
from evaluators.tasks.general.data import digest
from evaluators.tasks.general.few_shot import (
    Answered,
    FewShotPrompt,
    ask_with_shots,
    takes_system,
    transcript,
)
from evaluators.tasks.general.mmlu_data import LETTERS, MmluData, Question, load_mmlu
from evaluators.tasks.item_order import fixed_order
from evaluators.tasks.registry import SuiteSettings

TEST_SIZE = 14_042
"""Number of questions in the complete test split."""
CONTEXT = 2048
"""Tokens of prompt and answer. Shots are dropped from the front until the rest fits; the paper's
script truncates tokens instead, including the instruction."""

_SMALL_MASS = 0.1
"""Mean probability of the letters below which the figures are unreliable."""

_INSTRUCTION = (
    "You answer multiple-choice questions about {subject}. Exactly one of the choices is "
    "right. Reply with its letter, A, B, C or D, and nothing else."
)


class MmluEvaluator(Evaluator):
    """MMLU; figure: `accuracy`. A record has its subject as `group` and its number of `shots`.

    A letter's probability is the sum over all tokens that write it, with and without a blank:
    which one follows the generation prompt depends on the chat template and on the tokenizer.

    Args:
        data: Questions and shots.
        num_shots: Worked examples before each question, 0 to 5.
        batch_size: Prompts asked at once; on a server at most.

    Raises:
        ConfigError: A subject has fewer shots.
    """

    suite = "general"
    primary = "accuracy"

    def __init__(self, data: MmluData, num_shots: int = 5, batch_size: int = 16) -> None:
        for subject, shots in data.shots.items():
            if len(shots) < num_shots:
                raise ConfigError(
                    f"mmlu: {subject}: found {len(shots)} answered questions, expected {num_shots}"
                )
        self.name = "mmlu"
        self._data = data
        self._num_shots = num_shots
        self._batch_size = batch_size
        self._items = fixed_order(data.questions)

    def items(self) -> tuple[str, ...]:
        """Return ids such as "anatomy/12", with the row's number in the subject's test file."""
        return self._items

    def about(self) -> dict[str, str]:
        """Return the data and their number, the prompt wording and the rules."""
        questions = self._data.questions
        rows = [[name, *each.row] for name, each in questions.items()]
        whole_set = "complete" if len(rows) == TEST_SIZE else f"{len(rows):,} of {TEST_SIZE:,}"
        return {
            "data": f"{self._data.source}, {whole_set} test questions, sha256 {digest(rows)}",
            "prompt": "own",
            "shots": str(self._num_shots),
            "rule": f"argmax of the next token, at most {CONTEXT} tokens, micro average",
        }

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure questions; see `Evaluator.measure`."""
        model, system = subject.language_model(_context(subject)), takes_system(subject)

        def answer(batch: Sequence[str]) -> list[Answered]:
            prompts = [self.prompt(item, system) for item in batch]
            return ask_with_shots(
                lambda dialogues: model.next_token_logprobs(dialogues, LETTERS), prompts
            )

        def take(item: str, each: Answered) -> None:
            said = transcript(each.dialogue[-1:], _choice(each.answer))
            finished(self._record(item, each.answer, each.num_shots, said))

        answer_items(subject, items, self._batch_size, answer, take)

    def prompt(self, item: str, system: bool = True) -> FewShotPrompt:
        """Return the prompt of an item with all its shots."""
        question = self._data.questions[item]
        shots = self._data.shots[question.subject][: self._num_shots]
        return FewShotPrompt(
            _INSTRUCTION.format(subject=question.subject.replace("_", " ")),
            tuple((each.text(), each.answer) for each in shots),
            question.text(),
            system,
        )

    def _record(
        self, item: str, values: Values | None, shots: int, messages: list[dict[str, str]]
    ) -> Record:
        question: Question = self._data.questions[item]
        known = values is not None and max(values, default=-math.inf) > -math.inf
        right = known and _choice(values) == question.answer
        error = "" if known else "the model gives none of A, B, C and D a probability"
        if values is None:
            error = "the question does not fit the context"
        elif refused := getattr(values, "refused", ""):
            error = refused
        record: Record = {
            "item": item,
            "scores": {"accuracy": float(right)} if known else {},
            "error": error,
            "group": question.subject,
            "prompt": "own",
            "shots": shots,
            # JSON has no infinity.
            "logprobs": [v if math.isfinite(v) else None for v in values or ()],
            "answer": question.answer,
            "messages": messages if known else messages[:-1],
        }
        if values:
            record["letter_mass"] = math.fsum(math.exp(value) for value in values)
            record["prompt_tokens"] = getattr(values, "prompt_tokens", 0) or None
        return record

    def warning(self, records: Sequence[Record]) -> str:
        """Warn if the letters have little probability, or a server did not count prompt tokens."""
        found = []
        masses = [record["letter_mass"] for record in records if "letter_mass" in record]
        if masses and (mean := math.fsum(masses) / len(masses)) < _SMALL_MASS:
            found.append(
                f"A, B, C and D have {100 * mean:.2g} % of the next token's probability on "
                "average: the model begins its answer with something else, such as reasoning, or "
                "the chat template is not the model's"
            )
        uncounted = sum(record.get("prompt_tokens", 0) is None for record in records)
        if uncounted:
            found.append(
                f"the server does not report how many tokens {uncounted:,} of {len(records):,} "
                f"prompts have (usage), so the limit of {CONTEXT:,} was not applied to them"
            )
        return "; ".join(found)


def _choice(values: Values | None) -> str:
    return LETTERS[list(values).index(max(values))] if values else ""


def _context(subject: EvalTarget) -> int:
    # A smaller model's own limit stays. A server's count of the prompt (`usage`) is compared
    # with the same figure: see `EndpointModel.for_task`.
    config = getattr(subject.model, "config", None)
    return min(CONTEXT, getattr(config, "max_position_embeddings", None) or CONTEXT)


@options
class Options:
    """Options of MMLU."""

    data: str | None = Field(default=None, description="Folder of the questions.")
    shots: int = Field(default=5, ge=0, description="Answered questions before each one.")
    hub: str = Field(default="cais/mmlu", description="Hub dataset, where there is no folder.")


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create MMLU's evaluator.

    Raises:
        SourceNotFoundError: Neither folder nor hub has the data.
        DataError: A file is invalid.
    """
    given: Options = settings.options_of(name)
    return MmluEvaluator(load_mmlu(name, settings, given.hub), given.shots, settings.batch_size)
