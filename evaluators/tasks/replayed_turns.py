"""Compare an expert's turns with a model's predictions in their places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builders.encoding.token_rows import IGNORE_INDEX, Ints, TokenRow
from dataset_builders.formats.spelled_calls import CallSpelling
from dataset_builders.reasoning import spoken
from evaluators.models.logprobs import TokenScores
from evaluators.tasks.turns import action_start


@dataclass(frozen=True, slots=True)
class ReplayedTurn:
    """One expert turn, with the model's token-by-token predictions.

    Attributes:
        logprob: Sum over the action's tokens, in nats.
        tokens: Number of the action's tokens; all of the turn's if it has no action.
        agrees: Whether greedy decoding gives each of them.
        parsable: Whether the greedy tokens, each given the expert's prefix, can be parsed as an
            action; None if the environment is unknown.
    """

    logprob: float
    tokens: int
    agrees: bool
    parsable: bool | None


class TurnReader:
    """Splits a row into the expert's turns.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)

    def turns(
        self, row: TokenRow, score: TokenScores, has_action: Callable[[str], bool] | None
    ) -> list[ReplayedTurn]:
        """Return the trained turns of a text dialogue, in order.

        Args:
            row: The expert's trajectory.
            score: The model's predictions of it.
            has_action: Whether a turn's text has an action; None if that is unknown.
        """

        def parsable(expert: list[int], greedy: list[int]) -> bool | None:
            del expert
            return None if has_action is None else has_action(spoken(self._text(greedy)))

        return self._turns(row, score, self._action, parsable)

    def turns_with_tools(
        self, row: TokenRow, score: TokenScores, spelling: CallSpelling, tools: str
    ) -> list[ReplayedTurn]:
        """Return the trained turns of a dialogue with tools, in order.

        Args:
            row: The expert's trajectory.
            score: The model's predictions of it.
            spelling: How calls are written in it.
            tools: JSON text of the tools' schemas.
        """

        def action(expert: list[int]) -> int:
            return self._token_at(expert, spelling.start(self._written(expert)))

        def parsable(expert: list[int], greedy: list[int]) -> bool | None:
            read = spelling.read(self._written(greedy), tools)
            calls = spelling.start(self._written(expert)) is not None
            return not read.malformed and bool(read.calls or not calls)

        return self._turns(row, score, action, parsable)

    def _turns(
        self,
        row: TokenRow,
        score: TokenScores,
        action: Callable[[list[int]], int],
        parsable: Callable[[list[int], list[int]], bool | None],
    ) -> list[ReplayedTurn]:
        turns = []
        for start, end in trained_ranges(row.labels):
            if start == 0:
                continue
            expert = row.input_ids[start:end]
            greedy = score.likeliest[start - 1 : end - 1]
            first = action(expert.tolist())
            place = slice(start + first - 1, end - 1)
            turns.append(
                ReplayedTurn(
                    float(score.logprobs[place].sum(dtype=np.float64)),
                    end - start - first,
                    bool((greedy[first:] == expert[first:]).all()),
                    parsable(expert.tolist(), greedy.tolist()),
                )
            )
        return turns

    def _action(self, ids: list[int]) -> int:
        """Return the index of the token in which the turn's action begins."""
        return self._token_at(ids, action_start(self._text(ids)))

    def _token_at(self, ids: list[int], position: int | None) -> int:
        """Return the index of the token with a character of the turn's text; 0 without one."""
        if not position:
            return 0
        # The first token that ends after the position. Prefixes only grow, except for
        # incomplete characters, so bisection would work; turns are short.
        for number in range(len(ids)):
            if len(self._tokenizer.decode(ids[: number + 1])) > position:
                return number
        return 0

    def _text(self, ids: list[int]) -> str:
        while ids and ids[-1] in self._special:
            ids = ids[:-1]
        return str(self._tokenizer.decode(ids))

    def _written(self, ids: list[int]) -> str:
        """Return a turn without its end token; what marks a call may be special, too."""
        return str(self._tokenizer.decode(ids[:-1]))


def trained_ranges(labels: Ints) -> list[tuple[int, int]]:
    """Half-open ranges of trained tokens: a turn each, for something masked lies between."""
    trained = np.concatenate(([False], labels != IGNORE_INDEX, [False]))
    edges = np.flatnonzero(trained[1:] != trained[:-1])
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
