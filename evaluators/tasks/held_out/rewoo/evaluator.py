"""ReWOO evaluator: planner, tools and solver, for many questions concurrently."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import yaml

from dataset_builders.conversation import Message
from dataset_builders.errors import SourceNotFoundError
from evaluators.evaluator import Evaluator, Record, Suite
from evaluators.models.answer_facts import answer_facts, first_refusal
from evaluators.models.answering import answer_items
from evaluators.models.judge import UNDECIDED, Judge, Verdict
from evaluators.models.target import Decoding, EvalTarget, LanguageModel
from evaluators.tasks.held_out.hotpot_qa.answers import exact_match, token_f1
from evaluators.tasks.held_out.rewoo.scoring import closed_match
from evaluators.tasks.held_out.rewoo.task_sets import TASK_SETS, Question, find_folder, read_sets
from evaluators.tasks.held_out.rewoo.tools import CALCULATOR, DESCRIPTIONS, GOOGLE, WOLFRAM, ToolBox
from evaluators.tasks.held_out.rewoo.working import Work, gather

MAX_NEW_TOKENS = 256
TRIES = 3
RETRY_TEMPERATURE = 0.5
"""The published script's own, used where its greedy decoding would only repeat itself."""


class RewooEvaluator(Evaluator):
    """Answers questions by a plan made before any tool is called.

    Figures: `accuracy` (the paper's), `exact_match` and `f1` of the answers' words, and
    `planned`, `tool_refused`: shares of questions with a parsable plan, and of questions for which
    a tool failed.

    Args:
        data: Folder of ReWOO's own files; searched for if None.
        root: Folder of folders of data.
        judge: Tells whether an answer is right. Without one, sets whose answers only a
            judge can compare are left out.
        batch_size: Questions worked on at once; on a server at most.
        max_new_tokens: Limit on an answer of the model below the benchmark's.
        fewshot: File with worked plans in place of ours.
        wikipedia, google_url, wolfram_url: See `ToolBox`.

    Raises:
        SourceNotFoundError: No set can be scored, or there is no such file.
    """

    name = "rewoo"
    suite: Suite = "held-out"
    primary = "accuracy"

    def __init__(
        self,
        data: str | Path | None = None,
        *,
        root: str | Path | None = None,
        judge: Judge | None = None,
        batch_size: int = 16,
        max_new_tokens: int | None = None,
        fewshot: str | Path | None = None,
        wikipedia: str | None = None,
        google_url: str = GOOGLE,
        wolfram_url: str = WOLFRAM,
    ) -> None:
        self._judge = judge
        self._batch_size = batch_size
        self._decoding = Decoding(min(MAX_NEW_TOKENS, max_new_tokens or MAX_NEW_TOKENS))
        sets, self._absent = read_sets(data, root)
        if judge is None:
            for task_set in TASK_SETS:
                if task_set.name in sets and not task_set.closed:
                    del sets[task_set.name]
                    self._absent[task_set.name] = "needs a judge"
        if not sets:
            reasons = "; ".join(f"{name}: {why}" for name, why in self._absent.items())
            raise SourceNotFoundError(f"rewoo: found no task set that can be scored ({reasons})")
        self._questions = _in_turn(sets)
        document = None
        if "sotu_qa" in sets:
            document = find_folder(TASK_SETS[-1], data, root) / "state_of_the_union.txt"
        self._tools = ToolBox(document, wikipedia, google_url, wolfram_url)
        self._pieces, self._wording = _wording(fewshot)

    def items(self) -> tuple[str, ...]:
        """Return the questions, cycling through the sets."""
        return tuple(self._questions)

    def question(self, item: str) -> Question:
        """Return the question of an item."""
        return self._questions[item]

    def about(self) -> dict[str, str]:
        """Return prompt template, tools, scoring, and the omitted sets."""
        closed = "by rule (yes or no, last number, exact match), no judge"
        return {
            "prompt": self._wording,
            "sets": ", ".join(dict.fromkeys(q.task_set.name for q in self._questions.values())),
            "left_out": "; ".join(f"{name}: {why}" for name, why in self._absent.items()),
            "tools": ", ".join(self._tools.working()),
            "scoring": f"judge {self._judge}" if self._judge else closed,
        }

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """See `Evaluator.measure`."""
        model = subject.language_model()

        def answer(batch: Sequence[str]) -> list[Record]:
            works = [Work(item, self._questions[item]) for item in batch]
            self._plan(model, works)
            gather(works, self._tools, lambda asked: self._ask(model, asked, "llm"))
            self._solve(model, works)
            return [
                self._record(work, right, error)
                for work, (right, error) in zip(works, self._right(works), strict=True)
            ]

        answer_items(subject, items, self._batch_size, answer, lambda _, record: finished(record))

    def _plan(self, model: LanguageModel, works: Sequence[Work]) -> None:
        for number in range(TRIES):
            waiting = [work for work in works if not work.planned]
            asked = [self._planner_prompt(work.question) for work in waiting]
            decoding = self._decoding
            if number:
                decoding = replace(decoding, temperature=RETRY_TEMPERATURE, seed=number)
            for work, prompt, plan in zip(
                waiting, asked, self._chat(model, asked, decoding), strict=True
            ):
                work.take_plan(prompt, plan)

    def _solve(self, model: LanguageModel, works: Sequence[Work]) -> None:
        # As in the published script, one without a plan is answered without evidence.
        planned = [work for work in works if work.planned]
        asked = [
            self._fill("solver", log=work.log(), question=work.question.text) for work in planned
        ]
        answers = self._chat(model, asked, self._decoding)
        for work, prompt, answer in zip(planned, asked, answers, strict=True):
            work.take_answer(prompt, answer)

    def _ask(self, model: LanguageModel, asked: Sequence[str], piece: str) -> list[str | None]:
        prompts = [self._fill(piece, request=request) for request in asked]
        return self._chat(model, prompts, self._decoding)

    @staticmethod
    def _chat(model: LanguageModel, prompts: Sequence[str], decoding: Decoding) -> list[str | None]:
        dialogues = [[Message("user", prompt)] for prompt in prompts]
        return model.chat(dialogues, decoding) if dialogues else []

    def _right(self, works: Sequence[Work]) -> list[tuple[bool, str]]:
        """Return whether each answer is right, or why that could not be determined."""
        if self._judge is None:
            return [
                (bool(w.answer) and closed_match(w.answer, w.question.answer, w.closed), "")
                for w in works
            ]
        answered = [work for work in works if work.answer]
        dialogues = [
            [
                Message(
                    "user",
                    self._fill(
                        "judge",
                        question=work.question.text,
                        gold=work.question.answer,
                        answer=work.answer,
                    ),
                )
            ]
            for work in answered
        ]
        verdicts = self._judge.ask(dialogues, max_tokens=16) if dialogues else []
        judged = {
            work.item: _graded(verdict) for work, verdict in zip(answered, verdicts, strict=True)
        }
        return [judged.get(work.item, (False, "")) for work in works]

    def _record(self, work: Work, right: bool, error: str) -> Record:
        gold = work.question.answer
        error = first_refusal(work.answers) or error
        unanswered = "no_answer" if work.planned else "no_plan"
        scores = {
            "accuracy": float(right),
            "exact_match": float(exact_match(work.answer, gold)),
            "f1": token_f1(work.answer, gold),
            "planned": float(bool(work.steps)),
            "tool_refused": float(bool(work.refused)),
        }
        return {
            "item": work.item,
            "scores": {} if error else scores,
            "error": error,
            "group": work.question.task_set.name,
            "exit_reason": "answered" if work.answer else unanswered,
            "prompt": self._wording,
            "tools": dict(work.used),
            "refused": dict(work.refused),
            **answer_facts(work.answers),
            "messages": work.messages,
        }

    def _planner_prompt(self, question: Question) -> str:
        tools = "\n".join(f"{n}[input]: {DESCRIPTIONS[n]}" for n in question.task_set.tools)
        fewshot = self._pieces["fewshot" if CALCULATOR in question.task_set.tools else "lookup"]
        return self._fill("planner", tools=tools, fewshot=fewshot, question=question.text)

    def _fill(self, piece: str, **values: str) -> str:
        before, text = "", self._pieces[piece]
        for name, value in values.items():
            # In one pass over the text, so that braces within a value are kept.
            head, _, text = text.partition("{" + name + "}")
            before += head + value
        return before + text


def _graded(verdict: Verdict) -> tuple[bool, str]:
    undecided = UNDECIDED if verdict.correct is None else ""
    return bool(verdict.correct), verdict.error or undecided


def _in_turn(sets: dict[str, list[Question]]) -> dict[str, Question]:
    most = max(map(len, sets.values()))
    return {
        f"{name}-{number:02d}": questions[number]
        for number in range(most)
        for name, questions in sets.items()
        if number < len(questions)
    }


def _wording(fewshot: str | Path | None) -> tuple[dict[str, str], str]:
    text = (
        resources.files("evaluators.tasks.held_out.rewoo")
        .joinpath("prompt.yaml")
        .read_text("utf-8")
    )
    pieces: dict[str, str] = yaml.safe_load(text)
    if fewshot is not None:
        path = Path(fewshot)
        if not path.is_file():
            raise SourceNotFoundError(f"rewoo: fewshot: there is no file {path}")
        pieces["fewshot"] = pieces["lookup"] = path.read_text("utf-8").strip()
    digest = hashlib.sha256("\n".join(pieces.values()).encode()).hexdigest()[:8]
    return pieces, f"{'own' if fewshot is None else 'file'}:{digest}"
