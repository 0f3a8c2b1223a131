"""Judge whether two answers are equivalent."""

from __future__ import annotations

from collections.abc import Mapping

from dataset_builders.conversation import Message
from dataset_builders.errors import EnvironmentFailureError
from evaluators.models.judge import UNDECIDED, Judge

_ASKED = """\
A task was given to an assistant. Compare its answer with the right one. If the right one is a \
reason why the task cannot be done, the answer has to say that it cannot be done for this reason.

Task: {intent}
Right answer: {right}
Assistant's answer: {answer}

Write one word: CORRECT if it means the same or holds it, else INCORRECT."""


class JudgedSame:
    """Calls a judge; a `scoring.Same`.

    Args:
        settings: See `Judge`; the judge is created on first use.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._judge: Judge | None = None

    def __call__(self, answer: str, right: str, intent: str) -> bool:
        """Whether the answer is equivalent.

        Raises:
            EnvironmentFailureError: The judge did not answer, or neither yes nor no.
        """
        if self._judge is None:
            self._judge = Judge(self._settings, "web_arena")
        asked = _ASKED
        for name, value in (("intent", intent), ("right", right), ("answer", answer)):
            asked = asked.replace("{" + name + "}", value.replace("{", "("))
        verdict = self._judge.ask([[Message("user", asked)]], max_tokens=16)[0]
        if verdict.error:
            raise EnvironmentFailureError(f"web_arena: {verdict.error}")
        if verdict.correct is None:
            raise EnvironmentFailureError(f"web_arena: {UNDECIDED}")
        return verdict.correct
