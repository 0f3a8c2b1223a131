"""Few-shot prompts as chat turns, with fewer shots if the context is too short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dataset_builders.conversation import Message
from dataset_builders.errors import ConfigError, MaskError
from evaluators.models.target import EvalTarget
from evaluators.tasks.turns import message_record

_T = TypeVar("_T")

Shot = tuple[str, str]
"""A user turn and its answer."""


@dataclass(frozen=True, slots=True)
class FewShotPrompt:
    """A question after worked examples.

    Attributes:
        instruction: What to do; "" for none.
        shots: Worked examples.
        question: The question to answer.
        system: Whether the instruction is a system message; else it opens the first turn.
    """

    instruction: str
    shots: tuple[Shot, ...]
    question: str
    system: bool = True

    def dialogue(self, num_shots: int) -> list[Message]:
        """Return messages with the last `num_shots` shots; earlier ones are dropped."""
        kept = self.shots[len(self.shots) - num_shots :]
        turns: list[Message] = []
        for asked, answered in kept:
            turns += [Message("user", asked), Message("assistant", answered)]
        turns.append(Message("user", self.question))
        if self.instruction and self.system:
            return [Message("system", self.instruction), *turns]
        if self.instruction:
            turns[0] = Message("user", f"{self.instruction}\n\n{turns[0].content}")
        return turns


@dataclass(frozen=True, slots=True)
class Answered:
    """Result of a prompt.

    Attributes:
        answer: None if even the question alone does not fit the context.
        num_shots: Number of shots in the final prompt.
        dialogue: The messages that were sent.
    """

    answer: Any
    num_shots: int
    dialogue: list[Message]


def ask_with_shots(
    ask: Callable[[list[list[Message]]], Sequence[_T | None]], prompts: Sequence[FewShotPrompt]
) -> list[Answered]:
    """Generate answers; prompts that do not fit are retried with one shot fewer.

    Args:
        ask: Answers dialogues, with None for those that do not fit the context.
        prompts: All with as many shots as they should have.
    """
    done: list[Answered | None] = [None] * len(prompts)
    left = [(index, len(prompt.shots)) for index, prompt in enumerate(prompts)]
    while left:
        dialogues = [prompts[index].dialogue(shots) for index, shots in left]
        again = []
        for (index, shots), dialogue, answer in zip(left, dialogues, ask(dialogues), strict=True):
            if answer is None and shots:
                again.append((index, shots - 1))
            else:
                done[index] = Answered(answer, shots, dialogue)
        left = again
    return [each for each in done if each is not None]


def takes_system(subject: EvalTarget) -> bool:
    """Whether the chat template supports system messages; servers are assumed to."""
    if subject.tokenizer is None or subject.server is not None:
        return True
    from dataset_builders.masks.chat import ChatRenderer

    try:
        renderer = ChatRenderer(subject.tokenizer, subject.end_of_turn)
        shown = renderer.prompt([Message("system", "Be brief."), Message("user", "Hello.")])
    except (ConfigError, MaskError):
        return False
    return "Be brief." in shown


def transcript(dialogue: Sequence[Message], answer: str) -> list[dict[str, str]]:
    """Return a dialogue and its answer, JSON-ready."""
    shown = [message_record(message.role, message.content) for message in dialogue]
    return [*shown, message_record("assistant", answer)]
