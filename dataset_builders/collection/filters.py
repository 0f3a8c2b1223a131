"""Filters of played trajectories, with drop reasons.

The paper keeps a trajectory only if its reward is 1 (2/3 for Mind2Web, section 2.1.3): a
filter that needs no judge, because the environment itself scores. Further filters are
named functions with at most one number, written `name` or `name=number`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from dataset_builders.conversation import Message
from dataset_builders.endpoints.reply import CONTEXT_FULL
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.dialogue import BAD_FORMAT, ROUND_LIMIT
from dataset_builders.errors import ConfigError
from dataset_builders.reasoning import THOUGHT_LABEL
from dataset_builders.rollouts.episode import ENVIRONMENT_ERROR, Trajectory

Filter = Callable[[Trajectory], str]
"""The reason to drop a trajectory, or "" to keep it."""

BELOW_THRESHOLD = "reward_below_threshold"
NOTHING_TRAINED = "nothing_trained"
EMPTY_TURN = "empty_turn"
LONE_SURROGATE = "lone_surrogate"
CUT_TURNS = "cut_turns"

ALWAYS = "no_cut_turns"
"""Filter that is always applied, by default with 0: a truncated turn would teach the model to stop
mid-word, whatever its reward."""

_SELF_EXPLAINING = frozenset({BAD_FORMAT, CONTEXT_FULL, ROUND_LIMIT})
_SURROGATE = re.compile("[\ud800-\udfff]")
# Start of an action, in the formats of all six tasks.
_ACTS = re.compile(r"^[ \t]*(?:action|act|answer|final answer)[ \t]*:|```", re.I | re.M)
_REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|\bi(?:['\u2019]m| am) sorry\b"
    # Not "unable to" alone: an agent may legitimately be unable to find a file.
    r"|\bi(?:['\u2019]m| am)? ?"
    r"(?:cannot|can not|can['\u2019]t|won['\u2019]t|(?:unable|not able) to)"
    r" (?:help|assist|fulfil|comply|continue with (?:this|that|your))",
    re.I,
)


def threshold_of(environment: str | EnvironmentSpec) -> float:
    """Return the reward threshold for trajectories of this environment, the paper's if it has one.

    Raises:
        ConfigError: The environment is unknown.
    """
    spec = load_environment(environment) if isinstance(environment, str) else environment
    return spec.dialogue.world.success_score


def reward_filter(min_reward: float) -> Filter:
    """Keep trajectories with at least this reward, in [0, 1]; 0 keeps failures too.

    The drop reason is `BELOW_THRESHOLD`, or the exit reason if that explains the reward.

    Raises:
        ConfigError: The number is out of range.
    """
    if not 0 <= min_reward <= 1:
        raise ConfigError(f"min_reward: found {min_reward}, expected 0 to 1")

    def apply(trajectory: Trajectory) -> str:
        if trajectory.reward >= min_reward:
            return ""
        explains = trajectory.exit_reason in _SELF_EXPLAINING
        return trajectory.exit_reason if explains else BELOW_THRESHOLD

    return apply


def can_be_trained(trajectory: Trajectory) -> str:
    """Drop what no builder accepts: no trained turn, an empty turn, invalid Unicode."""
    if not any(message.trained for message in trajectory.messages):
        return NOTHING_TRAINED
    if any(_is_empty(message) for message in trajectory.messages):
        return EMPTY_TURN
    broken = any(_SURROGATE.search(message.content) for message in trajectory.messages)
    return LONE_SURROGATE if broken else ""


def _is_empty(message: Message) -> bool:
    # A tool may return nothing, and a call needs no text.
    return not (message.content.strip() or message.tool_calls or message.role == "tool")


def thought_of(turn: str) -> str:
    """Return an assistant turn's text before its action, without the label; "" if none."""
    acts = _ACTS.search(turn)
    before = turn[: acts.start()] if acts else turn
    return THOUGHT_LABEL.sub("", before).strip()


def refuses(text: str) -> bool:
    """Whether a text is a refusal to help."""
    return _REFUSAL.search(text) is not None


def _turns(trajectory: Trajectory) -> list[str]:
    return [message.content for message in trajectory.messages if message.trained]


def _whole(message: Message) -> str:
    """Return a turn's text and calls."""
    calls = (f"{call.name}({call.arguments})" for call in message.tool_calls)
    return "\n".join((message.content, *calls))


def _max_rounds(number: int) -> Filter:
    return lambda trajectory: "too_many_rounds" if trajectory.num_rounds > number else ""


def _min_rounds(number: int) -> Filter:
    return lambda trajectory: "too_few_rounds" if trajectory.num_rounds < number else ""


def _max_characters(number: int) -> Filter:
    def apply(trajectory: Trajectory) -> str:
        length = sum(len(_whole(message)) for message in trajectory.messages)
        return "too_long" if length > number else ""

    return apply


def _all_valid_format(number: int) -> Filter:
    def apply(trajectory: Trajectory) -> str:
        invalid = trajectory.num_rounds - trajectory.valid_rounds
        return "invalid_turns" if invalid > number else ""

    return apply


def _no_repetition(number: int) -> Filter:
    def apply(trajectory: Trajectory) -> str:
        turns = (_whole(message).strip() for message in trajectory.messages if message.trained)
        runs = (len(list(run)) for _, run in groupby(turns))
        return "repetition" if max(runs, default=0) >= number else ""

    return apply


def _has_thought(number: int) -> Filter:
    def apply(trajectory: Trajectory) -> str:
        turns = _turns(trajectory)
        lacking = sum(not thought_of(turn) for turn in turns)
        # As a share of the turns: a long episode may have a turn without thought, a short one not.
        return "no_thought" if (len(turns) - lacking) * 100 < number * len(turns) else ""

    return apply


def _no_refusal(number: int) -> Filter:
    def apply(trajectory: Trajectory) -> str:
        refusals = sum(map(refuses, _turns(trajectory)))
        return "refusal" if refusals > number else ""

    return apply


def _no_cut_turns(number: int) -> Filter:
    return lambda trajectory: CUT_TURNS if trajectory.cut_turns > number else ""


@dataclass(frozen=True, slots=True)
class FilterRule:
    """A named filter.

    Attributes:
        make: Creates the filter for a number.
        help: What is dropped, with N for the number.
        default: The default number; None: it is required.
    """

    make: Callable[[int], Filter]
    help: str
    default: int | None = None


FILTERS: dict[str, FilterRule] = {
    "all_valid_format": FilterRule(
        _all_valid_format, "more than N turns that could not be parsed", 0
    ),
    "has_thought": FilterRule(_has_thought, "a thought in less than N % of the turns", 100),
    "max_characters": FilterRule(_max_characters, "more than N characters in all turns"),
    "max_rounds": FilterRule(_max_rounds, "more than N turns of the model"),
    "min_rounds": FilterRule(_min_rounds, "fewer than N turns of the model"),
    "no_cut_turns": FilterRule(
        _no_cut_turns, "more than N turns that were cut at the token limit", 0
    ),
    "no_refusal": FilterRule(_no_refusal, "more than N turns that refuse", 0),
    "no_repetition": FilterRule(_no_repetition, "the same turn N times in a row", 3),
}
"""Filters by name; programs can add their own."""


def parse_filters(texts: Sequence[str]) -> dict[str, Filter]:
    """Parse filters from `name` or `name=number`.

    Returns:
        The filters by their full text, such as "max_rounds=10", in the order given.

    Raises:
        ConfigError: A name is unknown, or a number is missing, negative or not a number.
    """
    filters: dict[str, Filter] = {}
    for text in texts:
        name, given, value = text.partition("=")
        rule = FILTERS.get(name.strip())
        if rule is None:
            raise ConfigError(f"filter {name!r} is unknown; known: {', '.join(sorted(FILTERS))}")
        number = _number(text, value) if given else rule.default
        if number is None:
            raise ConfigError(f"filter {text!r}: expected a number, such as {name}=10")
        filters[f"{name.strip()}={number}"] = rule.make(number)
    return filters


def _number(text: str, value: str) -> int:
    if not re.fullmatch(r"\s*[0-9]+\s*", value):
        raise ConfigError(f"filter {text!r}: found {value!r}, expected a whole number from 0")
    return int(value)


class TrajectoryFilter:
    """All filters of a collection, with counts of their decisions.

    Args:
        min_reward: Minimum reward to keep; see `threshold_of`.
        filters: Further filters, as `parse_filters` takes them; the first that objects
            names the reason. `no_cut_turns` comes first unless it is among them.
        unfinished: Exit reasons, beside "environment_error", after which a trajectory is
            never kept whatever its reward, for it says nothing about the policy: limits
            of the collector, or an endpoint that failed. Counted under their own names.

    Attributes:
        cut_turns: Turns cut at the token limit in all trajectories counted.
        call_counts: Tool calls and their faults in all trajectories counted; see `Trajectory`.
        counts: "played", "kept" and the number dropped for each reason; "played" is the
            sum of all others.

    Raises:
        ConfigError: See `reward_filter` and `parse_filters`.
    """

    def __init__(
        self, min_reward: float, filters: Sequence[str] = (), unfinished: Collection[str] = ()
    ) -> None:
        self.min_reward = min_reward
        self.counts: Counter[str] = Counter(played=0, kept=0)
        self.cut_turns = 0
        self.call_counts: Counter[str] = Counter()
        named = {text.partition("=")[0].strip() for text in filters}
        always = [] if ALWAYS in named else [ALWAYS]
        self._further: Mapping[str, Filter] = parse_filters([*always, *filters])
        self._filters = (reward_filter(min_reward), can_be_trained, *self._further.values())
        self._unfinished = {ENVIRONMENT_ERROR, *unfinished}

    @property
    def names(self) -> tuple[str, ...]:
        """The additional filters with their numbers, for the record."""
        return tuple(self._further)

    def reason(self, trajectory: Trajectory) -> str:
        """Return why a trajectory is dropped, or "" if it is kept; counts nothing."""
        if trajectory.exit_reason in self._unfinished:
            return trajectory.exit_reason
        return next(filter(None, (apply(trajectory) for apply in self._filters)), "")

    def keeps(self, trajectory: Trajectory) -> bool:
        """Return whether a trajectory is kept, and count it."""
        reason = self.reason(trajectory)
        self.counts["played"] += 1
        self.cut_turns += trajectory.cut_turns
        self.call_counts.update(trajectory.call_counts)
        self.counts[reason or "kept"] += 1
        return not reason
