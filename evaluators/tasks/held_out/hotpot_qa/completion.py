"""ReAct as plain text without a chat template, as the paper ran HotpotQA."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer, is_cut, refusal
from evaluators.models.target import Decoding, LanguageModel
from evaluators.tasks.held_out.hotpot_qa.demonstrations import react_text

CONTEXT = 1700
"""Tokens of the prompt of a thought after which an episode ends; an action's may have more, as
in the published script, which looks between steps only."""
CHARACTERS_PER_TOKEN = 4


class TextCompletion:
    """Writes a thought, then an action, each up to the end of the line.

    Args:
        model: The model.
        count: Counts the tokens of a text.
        max_new_tokens: Limit of each of the two below the benchmark's.
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

    def __call__(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
    ) -> list[str | None]:
        """Write the next turns, see `AnswerTurns`; None where a prompt has grown past `CONTEXT`."""
        del tools  # The task offers none.
        decoding = Decoding(min(max_new_tokens, self._limit or max_new_tokens), stop=("\n",))
        steps = [1 + sum(message.trained for message in dialogue) for dialogue in dialogues]
        prompts = [_prompt(d, step) for d, step in zip(dialogues, steps, strict=True)]
        fits = [self._count(prompt) <= CONTEXT for prompt in prompts]
        thoughts = self._continue(prompts, fits, decoding)
        prompts = [
            f"{prompt} {thought or ''}\nAction {step}:"
            for prompt, thought, step in zip(prompts, thoughts, steps, strict=True)
        ]
        has_thought = [thought is not None for thought in thoughts]
        actions = self._continue(prompts, has_thought, decoding)
        return [_turn(*each) for each in zip(thoughts, actions, strict=True)]

    def _continue(
        self, prompts: Sequence[str], wanted: Sequence[bool], decoding: Decoding
    ) -> list[str | None]:
        places = [index for index, each in enumerate(wanted) if each]
        answers: list[str | None] = [None] * len(prompts)
        if places:
            texts = self._model.continue_text([prompts[index] for index in places], decoding)
            for index, answer in zip(places, texts, strict=True):
                answers[index] = answer
        return answers


def _turn(thought: str | None, action: str | None) -> Answer | None:
    if thought is None or action is None:
        return None
    if refused := refusal(thought) or refusal(action):
        return Answer(refused=refused)
    cut = is_cut(thought) or is_cut(action)
    return Answer(f"Thought: {thought}\nAction: {action}", cut=cut)


def _prompt(dialogue: Sequence[Message], step: int) -> str:
    # The second message only acknowledges the instruction.
    return f"{dialogue[0].content}\n\n{react_text(dialogue[2:])}\nThought {step}:"
