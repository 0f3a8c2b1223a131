"""One question on its way from plan to answer, and the gathering of evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dataset_builders.endpoints.answer import refusal
from evaluators.tasks.held_out.rewoo.plans import Step, read_plan
from evaluators.tasks.held_out.rewoo.task_sets import Closed, Question
from evaluators.tasks.held_out.rewoo.tools import LLM, RefusedError, ToolBox
from evaluators.tasks.turns import message_record

LONGEST_EVIDENCE = 2000
"""Characters of one tool's answer; what is longer would leave the solver no room."""


@dataclass(slots=True)
class Work:
    """A question in work.

    Attributes:
        item: Its name.
        question: The question.
        steps: The plan; empty where there is none.
        planned: Whether the planner is done: its plan can be carried out, or it made none.
        evidence: What the tools said, by name.
        answer: The solver's; "" where there is none.
        used: Calls by tool.
        refused: Calls by tool that brought a refusal.
        messages: The transcript.
        answers: What the model said, call by call; None where it found no room.
    """

    item: str
    question: Question
    steps: tuple[Step, ...] = ()
    planned: bool = False
    evidence: dict[str, str] = field(default_factory=dict)
    answer: str = ""
    used: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    messages: list[dict[str, str]] = field(default_factory=list)
    answers: list[str | None] = field(default_factory=list)

    @property
    def closed(self) -> Closed:
        """How answers are compared without a judge."""
        return self.question.task_set.closed

    def take_plan(self, prompt: str, told: str | None) -> None:
        """Read the planner's answer; None is one that found no room."""
        self._say(prompt, told)
        if refusal(told):
            self.planned = True  # Asking again brings the same.
            return
        plan = read_plan(told or "")
        self.steps, self.planned = plan or (), plan is not None

    def take_answer(self, prompt: str, told: str | None) -> None:
        """Keep the solver's answer."""
        self._say(prompt, told)
        self.answer = (told or "").strip()

    def take_evidence(self, step: Step, told: str) -> None:
        """Keep what a tool said."""
        self.evidence[step.name] = told[:LONGEST_EVIDENCE]

    def next_step(self) -> Step | None:
        """The first step without evidence."""
        return next((step for step in self.steps if step.name not in self.evidence), None)

    def log(self) -> str:
        """Reasons and evidence for the solver."""
        return "\n".join(
            f"Plan: {step.why}\nResult: {self.evidence[step.name]}" for step in self.steps
        )

    def _say(self, prompt: str, told: str | None) -> None:
        self.answers.append(told)
        self.messages += [message_record("user", prompt), message_record("assistant", told or "")]


def gather(
    works: Sequence[Work], tools: ToolBox, ask: Callable[[Sequence[str]], list[str | None]]
) -> None:
    """Take the steps of all plans; what the model itself is asked goes in batches.

    A step that is no call is its own evidence, and a tool that is not one of the set's
    finds none, as in the published script. Every other failure says why.
    """
    while True:
        waiting = [(work, step) for work in works if (step := _until_model(work, tools))]
        if not waiting:
            return
        answers = ask([step.filled(work.evidence) for work, step in waiting])
        for (work, step), answer in zip(waiting, answers, strict=True):
            work.answers.append(answer)
            work.take_evidence(step, answer or "The request is too long.")


def _until_model(work: Work, tools: ToolBox) -> Step | None:
    """Take steps up to the next one that asks the model; that one, or None at the end."""
    while step := work.next_step():
        if not step.tool:
            work.take_evidence(step, step.asked)
            continue
        work.used[step.tool] += 1
        if step.tool not in work.question.task_set.tools:
            work.refused[step.tool] += 1
            work.take_evidence(step, "No evidence found.")
        elif step.tool == LLM:
            return step
        else:
            try:
                work.take_evidence(step, tools.use(step.tool, step.filled(work.evidence)))
            except RefusedError as error:
                work.refused[step.tool] += 1
                work.take_evidence(step, str(error))
    return None
