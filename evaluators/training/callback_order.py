"""Order of callbacks at the end of training: before those that show or record figures close."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback, TrainerControl


def report_at_end(trainer: Trainer, callback: TrainerCallback, control: TrainerControl) -> None:
    """At the end of training, have a callback called before those of others.

    Its last figures come in `on_train_end`, where the progress bar closes and MLflow ends its
    run: after that they would reach neither. To be called in an event before that one. Callbacks
    of this package keep their order.
    """
    if not control.should_training_stop:
        return
    others = [each for each in trainer.callback_handler.callbacks if each is not callback]
    ours = [_is_ours(each) for each in others]
    place = ours.index(False) if False in ours else len(others)
    # A new list: the handler is iterating over the old one.
    trainer.callback_handler.callbacks = [*others[:place], callback, *others[place:]]


def go_last(trainer: Trainer, callback: TrainerCallback) -> None:
    """Have a callback called after all others, as when it was added: they set up first."""
    others = [each for each in trainer.callback_handler.callbacks if each is not callback]
    trainer.callback_handler.callbacks = [*others, callback]


def _is_ours(callback: TrainerCallback) -> bool:
    package = type(callback).__module__.partition(".")[0]
    return package in (__package__, "agenttuning_plugin")
