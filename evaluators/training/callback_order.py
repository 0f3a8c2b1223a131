"""Order of callbacks at the end of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments


class LastStepCallback(TrainerCallback):
    """A callback whose `on_epoch_end` handles the last step, before its model may be replaced."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Handle the last step likewise, if the epoch's evaluation ended training."""
        self.on_epoch_end(args, state, control)


def report_at_end(trainer: Trainer, callback: TrainerCallback, control: TrainerControl) -> None:
    """Call a callback before others at the end of training.

    Its last figures are logged in `on_train_end`, where the progress bar closes and MLflow ends its
    run: after that neither would show them. Must be called in an earlier event. Callbacks of this
    package keep their order.
    """
    if not control.should_training_stop:
        return
    others = [each for each in trainer.callback_handler.callbacks if each is not callback]
    ours = [_is_ours(each) for each in others]
    place = ours.index(False) if False in ours else len(others)
    # A new list: the handler is iterating over the old one.
    trainer.callback_handler.callbacks = [*others[:place], callback, *others[place:]]


def go_last(trainer: Trainer, callback: TrainerCallback) -> None:
    """Call a callback after all others: others set up first."""
    others = [each for each in trainer.callback_handler.callbacks if each is not callback]
    trainer.callback_handler.callbacks = [*others, callback]


def _is_ours(callback: TrainerCallback) -> bool:
    package = type(callback).__module__.partition(".")[0]
    return package in ("evaluators", "agenttuning_plugin")
