"""Progress of a question from plan to answer, and collection of evidence."""

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
    """A question in progress.

    Attributes:
        item: Its name.
        question: The question.
        steps: The plan; empty if there is none.
        planned: Whether the planner is done: its plan is valid, or it made none.
        evidence: Output of the tools, by name.
        answer: The solver's; "" if there is none.
        used: Calls by tool.
        refused: Calls by tool that were refused.
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

    def take_plan(self, prompt: str, answer: str | None) -> None:
        """Process the planner's answer; None if it did not fit the context."""
        self._say(prompt, answer)
        if refusal(answer):
            self.planned = True  # A retry would give the same.
            return
        plan = read_plan(answer or "")
        self.steps, self.planned = plan or (), plan is not None

    def take_answer(self, prompt: str, answer: str | None) -> None:
        """Store the solver's answer."""
        self._say(prompt, answer)
        self.answer = (answer or "").strip()

    def take_evidence(self, step: Step, answer: str) -> None:
        """Store a tool's output."""
        self.evidence[step.name] = answer[:LONGEST_EVIDENCE]

    def next_step(self) -> Step | None:
        """Return the first step without evidence."""
        return next((step for step in self.steps if step.name not in self.evidence), None)

    def log(self) -> str:
        """Format reasons and evidence for the solver."""
        return "\n".join(
            f"Plan: {step.why}\nResult: {self.evidence[step.name]}" for step in self.steps
        )

    def _say(self, prompt: str, answer: str | None) -> None:
        self.answers.append(answer)
        self.messages += [message_record("user", prompt), message_record("assistant", answer or "")]


def gather(
    works: Sequence[Work], tools: ToolBox, ask: Callable[[Sequence[str]], list[str | None]]
) -> None:
    """Execute the steps of all plans; calls of the model itself are batched.

    A step that is not a call is its own evidence, and a tool that does not belong to the set gives
    none, as in the published script. Every other failure states its reason.
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
    """Execute steps up to the next one that calls the model; return it, or None at the end."""
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
