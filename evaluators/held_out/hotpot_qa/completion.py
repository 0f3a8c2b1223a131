"""ReAct as bare text without a chat template: how the paper ran HotpotQA."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dataset_builders.conversation import Message
from evaluators.held_out.hotpot_qa.demonstrations import react_text
from evaluators.subject import Decoding, LanguageModel

CONTEXT = 1700
"""Tokens of the prompt after which an episode ends."""
CHARACTERS_PER_TOKEN = 4


class CompletionPolicy:
    """Writes a thought, then an action, each up to the end of the line.

    Args:
        model: The model.
        count: Tokens of a text.
        max_new_tokens: Limit on each of the two below the benchmark's.
    """

    def __init__(
        self,
        model: LanguageModel,
        count: Callable[[str], int],
        max_new_tokens: int | None = None,
    ) -> None:
        self._model = model
        self._count = count
        self._limit = max_new_tokens

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> list[str | None]:
        """See `ChatPolicy.complete`; None where the prompt has grown past `CONTEXT`."""
        decoding = Decoding(min(max_new_tokens, self._limit or max_new_tokens), stop=("\n",))
        steps = [1 + sum(message.trained for message in dialogue) for dialogue in dialogues]
        prompts = [_prompt(d, step) for d, step in zip(dialogues, steps, strict=True)]
        thoughts = self._continue(prompts, decoding)
        prompts = [
            f"{prompt} {thought or ''}\nAction {step}:"
            for prompt, thought, step in zip(prompts, thoughts, steps, strict=True)
        ]
        actions = self._continue(prompts, decoding)
        return [
            None if thought is None or action is None else f"Thought: {thought}\nAction: {action}"
            for thought, action in zip(thoughts, actions, strict=True)
        ]

    def _continue(self, prompts: list[str], decoding: Decoding) -> list[str | None]:
        fits = [index for index, text in enumerate(prompts) if self._count(text) <= CONTEXT]
        answers: list[str | None] = [None] * len(prompts)
        if fits:
            told = self._model.continue_text([prompts[index] for index in fits], decoding)
            for index, answer in zip(fits, told, strict=True):
                answers[index] = answer
        return answers


def _prompt(dialogue: Sequence[Message], step: int) -> str:
    # The second message only acknowledges the instruction.
    return f"{dialogue[0].content}\n\n{react_text(dialogue[2:])}\nThought {step}:"
