"""A model loaded in this process that plays a collection's tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agenttuning_plugin.evaluation.model_loading import open_subject
from agenttuning_plugin.reports.model_record import read_model_record
from dataset_builders.collection.engine import LocalPlayer
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.rollouts.model_policies import AnswerTurns, AttemptPolicy


@contextmanager
def loaded_player(
    model: str | Path, how: Sampling, end_of_turn: tuple[str, ...] | None = None
) -> Iterator[LocalPlayer]:
    """Load a model that plays; attempt k of a task samples with the seed + k.

    Args:
        model: Folder or hub id; an adapter is loaded onto its base.
        how: Sampling settings; greedy without a temperature.
        end_of_turn: Tokens that end a turn beside eos; default: as the run recorded them.

    Raises:
        AgentTuningError: The model cannot be loaded.
    """
    from evaluators.models.eval_mode import evaluation_mode
    from evaluators.models.interface import Decoding
    from evaluators.tasks.agent_task import answer_turns

    if end_of_turn is None:
        end_of_turn = tuple(read_model_record(Path(model)).get("end_of_turn") or ())
    subject = open_subject(str(model), end_of_turn=end_of_turn)

    def answer_of(attempt: int) -> AnswerTurns:
        decoding = Decoding(
            0,
            float(how.temperature or 0),
            how.top_p or 1.0,
            stop=how.stop,
            seed=(how.seed or 0) + attempt,
        )
        return answer_turns(language, how.max_tokens, decoding)

    with evaluation_mode(subject):
        language = subject.language_model()
        yield LocalPlayer(str(model), AttemptPolicy(answer_of))
