"""Jobs of harbor: the trajectories of each trial in ATIF, with the reward of its verifier.

Source: the folder of a job, of several jobs or of one trial; see `trials`. Each trajectory file of
a trial is one conversation: the agent's, its continuations after a compaction of the context
(`trajectory.cont-1.json`, written with terminus-2's `linear_history`) and those of its subagents
(`trajectory.summarization-1-summary.json`). Steps copied from an earlier one are context there and
not trained. All have the location of the trial, so that they are never split between training and
holdout. The reward is `verifier_result.rewards` of `result.json`, else `verifier/reward.txt` or
`reward.json`; of several it is the one named `reward`.

Trials that an error of the provider, sandbox or harness ended, and those without an end, are
dropped and counted. Where the agent ran out of its budget or refused, or the verifier failed, the
trajectory is whole and kept (`harbor.models.trial.error_policy`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builders.formats import atif
from dataset_builders.formats.rewards import BAD_REWARD, number_of, one_of
from dataset_builders.formats.rollout_ends import UNFINISHED, check_no_error
from dataset_builders.readers.building import Converted, RecordDroppedError
from dataset_builders.readers.files import Located, Record
from dataset_builders.readers.json_stream import BadRecord, OnLost
from dataset_builders.readers.trials import read_json, trajectories_of
from dataset_builders.tools import metadata_text

if TYPE_CHECKING:
    from atif import Trajectory

SOURCE = "harbor"

# Failures of the agent or of the verifier: the transcript is the policy's.
_WHOLE = frozenset(
    {
        "AgentTimeoutError",
        "ContextWindowExceededError",
        "ContextLengthExceededError",
        "AgentSafetyRefusalError",
        "ContentPolicyViolationError",
        "VerifierTimeoutError",
        "RewardFileNotFoundError",
        "RewardFileEmptyError",
        "VerifierOutputParseError",
    }
)
_CUT = frozenset({"OutputTokenExceededError", "OutputLengthExceededError"})


@dataclass(frozen=True, slots=True)
class _TrialPart:
    """One trajectory of a trial.

    Attributes:
        trial: Folder of the trial.
        result: Value of its `result.json`; a `BadRecord` if it cannot be read.
        file: The trajectory.
        number: Number of the trajectory in the trial, from 0.
        of: How many trajectories the trial has.
    """

    trial: Path
    result: Any
    file: Path
    number: int
    of: int


def read(located: Located, on_lost: OnLost) -> Generator[Record]:
    """Yield the trajectories of every trial; a trial without one as a `BadRecord`."""
    for trial in located.trials:
        where = trial.relative_to(located.root).as_posix()
        where = trial.name if where == "." else where
        result_file = trial / "result.json"
        files = trajectories_of(trial)
        if not result_file.exists():
            detail = "result.json: missing: the trial did not end; expected a finished trial"
            yield Record(where, BadRecord(UNFINISHED, detail), "")
            continue
        result = read_json(result_file)
        if isinstance(result, BadRecord):
            yield Record(where, result, "")
        elif not files:
            yield Record(where, _without_trajectory(result), "")
        else:
            for number, file in enumerate(files):
                yield Record(where, _TrialPart(trial, result, file, number, len(files)), "")


def _without_trajectory(result: Any) -> BadRecord:
    try:
        _check_result(result)
    except RecordDroppedError as error:
        return BadRecord(error.reason, error.detail)
    return BadRecord(
        "no_trajectory",
        "agent/trajectory.json: missing: the agent writes no ATIF; expected one at least",
    )


def convert(record: Record, *, model: type[Trajectory]) -> Converted:
    """Convert a trajectory of a trial to a conversation.

    Args:
        record: The record, from `read`.
        model: See `atif.trajectory_model`.

    Raises:
        RecordDroppedError: It cannot be used; names the file.
    """
    part: _TrialPart = record.value
    _check_result(part.result)
    place = part.file.relative_to(part.trial).as_posix()
    value = read_json(part.file)
    if isinstance(value, BadRecord):
        raise RecordDroppedError(*value)
    try:
        converted = atif.convert(Record(record.where, value, ""), model=model)
    except RecordDroppedError as error:
        raise RecordDroppedError(error.reason, f"{place}: {error.detail}") from error
    found = converted.conversation
    name = metadata_text(part.result.get("trial_name")) or part.trial.name
    source = part.result.get("source") or part.result.get("task_name")
    conversation = replace(
        found,
        id=f"{name}/{part.number}" if part.of > 1 else name,
        source=SOURCE,
        task=metadata_text(source),
        model=found.model or _model_of(part.result),
        reward=_reward_of(part),
    )
    return converted._replace(conversation=conversation)


def _check_result(result: Any) -> None:
    if not isinstance(result, Mapping):
        raise RecordDroppedError(
            "bad_trial", f"result.json: found {type(result).__name__}, expected an object"
        )
    if "trial_name" in result and result.get("finished_at") is None:
        raise RecordDroppedError(
            UNFINISHED, "result.json: finished_at: found none, expected a finished trial"
        )
    for error in (result.get("exception_info"), *map(_exception, _steps(result))):
        kind = error.get("exception_type") if isinstance(error, Mapping) else None
        if kind in _CUT:
            raise RecordDroppedError(
                "cut_turn", f"result.json: exception_info: found {kind}: an answer was cut"
            )
        if kind not in _WHOLE:
            check_no_error(error, "result.json: exception_info")


def _steps(result: Mapping[str, Any]) -> list[Any]:
    steps = result.get("step_results")
    return steps if isinstance(steps, list) else []


def _exception(step: Any) -> Any:
    return step.get("exception_info") if isinstance(step, Mapping) else None


def _reward_of(part: _TrialPart) -> float | None:
    verified = part.result.get("verifier_result")
    if isinstance(verified, Mapping) and verified.get("rewards"):
        return one_of(verified["rewards"], "result.json: verifier_result.rewards")
    text = part.trial / "verifier" / "reward.txt"
    if text.is_file():
        return _number_in(text)
    file = part.trial / "verifier" / "reward.json"
    if not file.is_file():
        return None
    value = read_json(file)
    if isinstance(value, BadRecord):
        raise RecordDroppedError(BAD_REWARD, f"verifier/{value.detail}")
    return one_of(value, "verifier/reward.json")


def _number_in(file: Path) -> float | None:
    where = "verifier/reward.txt"
    text = file.read_text(encoding="utf-8", errors="replace").strip()
    try:
        return number_of(float(text), where)
    except ValueError as error:
        raise RecordDroppedError(
            BAD_REWARD, f"{where}: found {text!r:.60}, expected a number"
        ) from error


def _model_of(result: Mapping[str, Any]) -> str:
    agent = result.get("agent_info")
    info = agent.get("model_info") if isinstance(agent, Mapping) else None
    return metadata_text(info.get("name")) if isinstance(info, Mapping) else ""
