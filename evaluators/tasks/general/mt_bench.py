"""MT-Bench: open questions in two turns, rated from 1 to 10 by a judge model.

Dataset: Zheng et al. 2023, 80 questions of eight categories. Metric: mean rating over both
turns. Protocol: FastChat's single-answer grading with its own judge prompts: a separate one for the
second turn, and one with a reference answer for mathematics, reasoning and coding. Temperatures by
category and 1,024 tokens a turn are FastChat's defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pydantic import Field

from dataset_builders.conversation import Message
from dataset_builders.settings import options
from evaluators.evaluator import Evaluator, Record
from evaluators.models.answer_facts import answer_facts, first_refusal
from evaluators.models.answering import answer_items
from evaluators.models.judge import Judge, Verdict
from evaluators.models.target import Decoding, EvalTarget, LanguageModel
from evaluators.tasks.general.data import Row, digest
from evaluators.tasks.general.mt_bench_data import MtBenchData, load_mt_bench
from evaluators.tasks.registry import SuiteSettings
from evaluators.tasks.turns import message_record

TEMPERATURES: Mapping[str, float] = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""FastChat's temperature of answers by category. Other categories have its default, 0.7."""
MAX_NEW_TOKENS = 1024
JUDGE_TOKENS = 2048
_RATINGS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def read_rating(text: str) -> float | None:
    """Parse the rating in a judge's answer: the first `[[n]]`, else the first `[n]`; 1 to 10."""
    for pattern in _RATINGS:
        if match := pattern.search(text):
            rating = float(match[1])
            return rating if 1 <= rating <= 10 else None
    return None


class MtBenchEvaluator(Evaluator):
    """MT-Bench; figures: `score`, the mean over both turns, `turn_1` and `turn_2`; 1 to 10.

    A question with an unrated turn is an error and excluded from all figures.

    Args:
        data: Questions, references and the judge's prompts.
        judge: The judge.
        batch_size: Questions answered at once; on a server at most.
        max_new_tokens: Limit of an answer below the benchmark's own.
        seed: Sampling seed.
    """

    suite = "general"
    primary = "score"

    def __init__(
        self,
        data: MtBenchData,
        judge: Judge,
        batch_size: int = 16,
        max_new_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        self.name = "mt_bench"
        self._data = data
        self._judge = judge
        self._batch_size = batch_size
        self._decoding = Decoding(min(max_new_tokens or MAX_NEW_TOKENS, MAX_NEW_TOKENS), seed=seed)
        self._items = _by_turns(data.questions)

    def items(self) -> tuple[str, ...]:
        """Return the numbers of the questions, cycling through the categories."""
        return self._items

    def about(self) -> dict[str, str]:
        """Return the judge, the data, the judge prompts and the decoding."""
        data = self._data
        prompts = [[name, p.system, p.template] for name, p in sorted(data.prompts.items())]
        return {
            "judge": str(self._judge),
            "data": f"{len(self._items)} questions, sha256 {digest(data.questions.values())}",
            "prompt": f"judge: FastChat's, sha256 {digest(prompts)}",
            "decoding": f"temperatures by category, {self._decoding.max_new_tokens} tokens",
        }

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Generate answers and have them rated; see `Evaluator.measure`."""
        model = subject.language_model()

        def rated(batch: Sequence[str]) -> list[Record]:
            answers = self._answers(model, batch)
            verdicts = self._verdicts(answers)
            return [self._record(item, answers[item], verdicts.get(item, ())) for item in batch]

        answer_items(subject, items, self._batch_size, rated, lambda _, record: finished(record))

    def _verdicts(self, answers: Mapping[str, Sequence[str]]) -> dict[str, Sequence[Verdict]]:
        """Return the judge's verdicts on both turns of completely answered questions."""
        whole = [item for item in answers if _is_whole(answers[item])]
        asked = [
            self._data.judgement(item, answers[item], turn) for item in whole for turn in (0, 1)
        ]
        verdicts = self._judge.ask(asked, JUDGE_TOKENS) if asked else []
        return dict(zip(whole, zip(verdicts[::2], verdicts[1::2], strict=True), strict=True))

    def _answers(self, model: LanguageModel, items: Sequence[str]) -> dict[str, list[str]]:
        """Generate answers to both turns of each question; fewer if the context is too short."""
        answers: dict[str, list[str]] = {item: [] for item in items}
        for turn in (0, 1):
            for temperature in sorted({self._temperature(item) for item in items}):
                chosen = [
                    item
                    for item in items
                    if len(answers[item]) == turn
                    and not first_refusal(answers[item])
                    and self._temperature(item) == temperature
                ]
                if not chosen:
                    continue
                dialogues = [self._dialogue(item, answers[item]) for item in chosen]
                decoding = replace(self._decoding, temperature=temperature)
                for item, answer in zip(chosen, model.chat(dialogues, decoding), strict=True):
                    if answer is not None:
                        answers[item].append(answer)
        return answers

    def _temperature(self, item: str) -> float:
        return TEMPERATURES.get(self._data.questions[item]["category"], 0.7)

    def _dialogue(self, item: str, answers: Sequence[str]) -> list[Message]:
        """Turns so far; ends in a question as long as one is open."""
        turns = self._data.questions[item]["turns"]
        messages: list[Message] = []
        for number, asked in enumerate(turns[: len(answers) + 1]):
            messages.append(Message("user", asked))
            messages += [Message("assistant", text) for text in answers[number : number + 1]]
        return messages

    def _record(self, item: str, answers: Sequence[str], verdicts: Sequence[Verdict]) -> Record:
        ratings = [read_rating(verdict.text) for verdict in verdicts]
        known = [rating for rating in ratings if rating is not None]
        scores: dict[str, float] = {}
        if len(known) == 2:
            scores = {"score": sum(known) / 2, "turn_1": known[0], "turn_2": known[1]}
        return {
            "item": item,
            "scores": scores,
            "error": "" if scores else _why(answers, verdicts, ratings),
            "group": self._data.questions[item]["category"],
            "judgements": [verdict.text for verdict in verdicts],
            "ratings": ratings,
            **answer_facts(answers),
            "messages": [
                message_record(message.role, message.content)
                for message in self._dialogue(item, answers)
            ],
        }


def _is_whole(answers: Sequence[str]) -> bool:
    return len(answers) == 2 and not first_refusal(answers)


def _why(
    answers: Sequence[str], verdicts: Sequence[Verdict], ratings: Sequence[float | None]
) -> str:
    if error := first_refusal(answers):
        return error
    if len(answers) < 2:
        return f"turn {len(answers) + 1} does not fit the context"
    for turn, (verdict, rating) in enumerate(zip(verdicts, ratings, strict=True), 1):
        if rating is None:
            return verdict.error or f"the judge gave turn {turn} no rating from 1 to 10"
    return "the judge was not asked"


def _by_turns(questions: Mapping[str, Row]) -> tuple[str, ...]:
    """Order questions by cycling through the categories, since the file is sorted by category."""
    places: dict[str, int] = {}
    keys = {}
    for number, (item, row) in enumerate(questions.items()):
        category = row["category"]
        places[category] = places.get(category, -1) + 1
        keys[item] = (places[category], number)
    return tuple(sorted(keys, key=lambda item: keys[item]))


@options
class Options:
    """Options of MT-Bench."""

    data: str | None = Field(default=None, description="Folder of FastChat's files.")


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create MT-Bench's evaluator.

    Raises:
        ConfigError: There is no judge, or its settings are invalid.
        SourceNotFoundError: No folder has FastChat's files.
        DataError: A file is invalid, or a question lacks its reference.
    """
    settings.options_of(name)
    judge = Judge(settings.judge, name)
    data = load_mt_bench(name, settings)
    for item in data.questions:  # Checked before the model answers, not after.
        for turn in (0, 1):
            data.judgement(item, ("", ""), turn)
    return MtBenchEvaluator(
        data, judge, settings.batch_size, settings.max_new_tokens, settings.seed
    )
