"""MMLU: knowledge of 57 subjects, by the probability of the four answers' letters.

Dataset: Hendrycks et al. 2021, 14,042 test questions, five worked ones a subject. Metric:
accuracy over all questions (micro average), as AgentTuning reports. Protocol: its evaluation
script's, five shots as chat turns, argmax over the next token after the generation prompt,
at most 2,048 tokens; with our own wording, and without its prefilled answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from dataset_builders.errors import ConfigError
from evaluators.base import Evaluator, Record
from evaluators.general.data import digest, options_of, shuffled, whole
from evaluators.general.few_shot import (
    FewShotPrompt,
    ask_with_shots,
    batches,
    takes_system,
    transcript,
)
from evaluators.general.mmlu_data import LETTERS, MmluData, Question, load_mmlu
from evaluators.subject import LanguageModel, Subject
from evaluators.suites import SuiteSettings

TEST_SIZE = 14_042
"""Questions of the complete test split."""
CONTEXT = 2048
"""Tokens of prompt and answer. Shots are dropped from the front until the rest fits; the
paper's script cuts tokens off instead, the instruction with them."""

_INSTRUCTION = (
    "You answer multiple-choice questions about {subject}. Exactly one of the choices is "
    "right. Reply with its letter, A, B, C or D, and nothing else."
)


class MmluEvaluator(Evaluator):
    """Figure: `accuracy`. A record's `group` is its subject, `shots` what its prompt had.

    A letter's probability is the sum over its spellings with and without a blank before it,
    as far as they are one token of the tokenizer: which one follows the generation prompt is
    for the chat template to say.

    Args:
        data: Questions and shots.
        num_shots: Answered questions before each, 0 to 5.
        batch_size: Prompts asked at once.
        seed: Of the order of the items.

    Raises:
        ConfigError: A subject has fewer shots.
    """

    suite = "general"
    primary = "accuracy"

    def __init__(
        self, data: MmluData, num_shots: int = 5, batch_size: int = 16, seed: int = 0
    ) -> None:
        for subject, shots in data.shots.items():
            if len(shots) < num_shots:
                raise ConfigError(
                    f"mmlu: {subject}: found {len(shots)} answered questions, expected {num_shots}"
                )
        self.name = "mmlu"
        self._data = data
        self._num_shots = num_shots
        self._batch_size = batch_size
        self._items = shuffled(data.questions, seed)

    def items(self) -> tuple[str, ...]:
        """Such as "anatomy/12", the number of the row in the subject's test file."""
        return self._items

    def about(self) -> dict[str, str]:
        """The data and how many they are, the wording and the rules."""
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
        self, subject: Subject, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure questions; see `Evaluator.measure`."""
        model, system = subject.language_model(_context(subject)), takes_system(subject)
        spellings = letter_spellings(subject.tokenizer)
        for batch in batches(items, self._batch_size):
            prompts = [self.prompt(item, system) for item in batch]
            answered = ask_with_shots(
                lambda dialogues: letter_logprobs(model, dialogues, spellings), prompts
            )
            for item, each in zip(batch, answered, strict=True):
                said = transcript(each.dialogue[-1:], _choice(each.answer))
                finished(self._record(item, each.answer, each.num_shots, said))

    def prompt(self, item: str, system: bool = True) -> FewShotPrompt:
        """The prompt of an item with all its shots."""
        question = self._data.questions[item]
        shots = self._data.shots[question.subject][: self._num_shots]
        return FewShotPrompt(
            _INSTRUCTION.format(subject=question.subject.replace("_", " ")),
            tuple((each.text(), each.answer) for each in shots),
            question.text(),
            system,
        )

    def _record(
        self, item: str, values: list[float] | None, shots: int, messages: list[dict[str, str]]
    ) -> Record:
        question: Question = self._data.questions[item]
        known = values is not None and max(values) > -math.inf
        right = known and _choice(values) == question.answer
        error = "" if known else "the model gives none of A, B, C and D a probability"
        if values is None:
            error = "the context has no room for the question"
        return {
            "item": item,
            "scores": {"accuracy": float(right)} if known else {},
            "error": error,
            "group": question.subject,
            "prompt": "own",
            "shots": shots,
            # JSON knows no infinity.
            "logprobs": [v if math.isfinite(v) else None for v in values or ()],
            "answer": question.answer,
            "messages": messages if known else messages[:-1],
        }


def letter_spellings(tokenizer: Any) -> tuple[tuple[str, ...], ...]:
    """Spellings of the letters, each list in the order of the letters.

    Args:
        tokenizer: The model's; None where a server's is not known, which then has both.

    Raises:
        ConfigError: In no spelling are all four letters single tokens.
    """
    both = (LETTERS, tuple(f" {letter}" for letter in LETTERS))
    if tokenizer is None:
        return both
    found: dict[tuple[int, ...], tuple[str, ...]] = {}
    for spelling in both:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in spelling]
        if all(len(each) == 1 for each in ids):
            found.setdefault(tuple(each[0] for each in ids), spelling)
    if not found:
        raise ConfigError("mmlu: A, B, C and D are not single tokens of this tokenizer")
    return tuple(found.values())


def letter_logprobs(
    model: LanguageModel, dialogues: list[list[Any]], spellings: Sequence[Sequence[str]]
) -> list[list[float] | None]:
    """Log-probability in nats of each letter, summed over its spellings."""
    candidates = [text for spelling in spellings for text in spelling]
    told = model.next_token_logprobs(dialogues, candidates)
    return [
        None if row is None else [_log_sum(row[place :: len(LETTERS)]) for place in range(4)]
        for row in told
    ]


def _log_sum(values: Sequence[float]) -> float:
    top = max(values)
    if top == -math.inf:
        return top
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def _choice(values: Sequence[float] | None) -> str:
    return LETTERS[list(values).index(max(values))] if values else ""


def _context(subject: Subject) -> int:
    # A smaller model's own limit stays; a server counts for itself.
    config = getattr(subject.model, "config", None)
    return min(CONTEXT, getattr(config, "max_position_embeddings", None) or CONTEXT)


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """MMLU's evaluator; options `data` (a folder), `shots` and `hub` (another dataset).

    Raises:
        SourceNotFoundError: Neither folder nor hub has the data.
        DataError: A file is not what it should be.
    """
    options = options_of(name, settings, ("data", "shots", "hub"))
    shots = whole(name, options, "shots", 5, least=0)
    data = load_mmlu(name, settings, str(options.get("hub", "cais/mmlu")))
    return MmluEvaluator(data, shots, settings.batch_size, settings.seed)
