"""Load FastChat's files of MT-Bench: questions, reference answers, judge prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_builders.conversation import Message
from dataset_builders.errors import DataError
from evaluators.tasks.general.data import Row, benchmark_folder, read_rows
from evaluators.tasks.registry import SuiteSettings

REFERENCED = frozenset({"math", "reasoning", "coding"})
"""Categories that are judged with a reference answer."""


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """Prompt of the judge: a system message and the template of a user turn."""

    system: str
    template: str


@dataclass(frozen=True, slots=True)
class MtBenchData:
    """FastChat's files.

    Attributes:
        questions: By identifier.
        references: Reference answers of both turns, by identifier.
        prompts: Judge prompts, by name.
    """

    questions: Mapping[str, Row]
    references: Mapping[str, Sequence[str]]
    prompts: Mapping[str, JudgePrompt]

    def judgement(self, item: str, answers: Sequence[str], turn: int) -> list[Message]:
        """Return the judge's prompt about the first or second turn (0 or 1)."""
        question = self.questions[item]
        turns = question["turns"]
        kind = "math-" if question["category"] in REFERENCED else ""
        prompt = self.prompts[f"single-{kind}v1{'-multi-turn' if turn else ''}"]
        filled = {
            "question": turns[0],
            "answer": answers[0],
            "question_1": turns[0],
            "answer_1": answers[0],
            "question_2": turns[-1],
            "answer_2": answers[-1],
        }
        for number, text in enumerate(self.references.get(item, ()), 1):
            filled[f"ref_answer_{number}"] = text
        try:
            asked = prompt.template.format(**filled)
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(
                f"mt_bench: question {item}: the judge's prompt needs {error}, which is missing"
            ) from None
        return [Message("system", prompt.system), Message("user", asked)]


def load_mt_bench(name: str, settings: SuiteSettings) -> MtBenchData:
    """Load FastChat's files from a folder.

    It has `question.jsonl`, `judge_prompts.jsonl` and reference answers in
    `reference_answer*.jsonl` or `reference_answer/*.jsonl`.

    Raises:
        SourceNotFoundError: There is none; no hub dataset has MT-Bench's prompts.
        DataError: A file is invalid.
    """
    needs = ("question.jsonl", "judge_prompts.jsonl")
    what = "FastChat's files of llm_judge/data (mt_bench and judge_prompts.jsonl)"
    folder = benchmark_folder(name, settings, ("mt_bench",), needs, what)
    fields: dict[str, type | tuple[type, ...]] = {
        "question_id": (int, str),
        "category": str,
        "turns": list,
    }
    questions = {}
    for number, row in enumerate(read_rows(folder / needs[0], fields), 1):
        if len(row["turns"]) != 2:
            raise DataError(
                f"{folder / needs[0]}:{number}: turns: found {len(row['turns'])}, expected 2"
            )
        questions[str(row["question_id"])] = row
    return MtBenchData(questions, _references(folder), _prompts(folder / needs[1]))


def _prompts(file: Path) -> dict[str, JudgePrompt]:
    fields = dict.fromkeys(("name", "system_prompt", "prompt_template"), str)
    prompts = {
        row["name"]: JudgePrompt(row["system_prompt"], row["prompt_template"])
        for row in read_rows(file, fields)
        if row["name"].startswith("single-")
    }
    for name in ("v1", "math-v1", "v1-multi-turn", "math-v1-multi-turn"):
        if f"single-{name}" not in prompts:
            raise DataError(f"{file}: found no prompt single-{name}, expected one")
    return prompts


def _references(folder: Path) -> dict[str, list[str]]:
    files = [*folder.glob("reference_answer*.jsonl"), *folder.glob("reference_answer/*.jsonl")]
    found = {}
    for file in sorted(files):
        rows = read_rows(file, {"question_id": (int, str), "choices": list})
        for number, row in enumerate(rows, 1):
            try:
                found[str(row["question_id"])] = [str(t) for t in row["choices"][0]["turns"]]
            except (LookupError, TypeError):
                raise DataError(f"{file}:{number}: choices: found no turns") from None
    return found
