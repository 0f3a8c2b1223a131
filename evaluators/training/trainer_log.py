"""Logging of an evaluation's figures through a trainer, beside its own training log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl


def log_figures(trainer: Trainer, figures: dict[str, float], control: TrainerControl) -> None:
    """Log figures without an effect on the training log of the same step.

    `Trainer.log` of the base class is called: TRL's own adds its running averages and clears
    them, so this step's training log would lack them. Logging also resets `should_log`, which
    would suppress that log.
    """
    from transformers import Trainer

    should_log = control.should_log
    Trainer.log(trainer, figures)
    control.should_log = should_log
