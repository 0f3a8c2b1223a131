"""Callback that records a run's base model, and writes the model card when training ends."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.reports.model_card import write_run_card
from agenttuning_plugin.reports.model_record import base_fingerprint, write_model_record

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

_PACKAGES = ("axolotl", "trl", "peft", "bitsandbytes", "torch", "transformers")


class ModelRecord(TrainerCallback):
    """Writes `agenttuning_model.json` when training begins and the model card when it ends.

    Args:
        trainer: The trainer, with its model.
        section: The recipe's section.
        end_of_turn: Tokens beside eos that end a turn.
        recipe: Path of the Axolotl recipe; by default the running script.
    """

    def __init__(
        self,
        trainer: Trainer,
        section: AgentTuningSection,
        end_of_turn: Sequence[str] = (),
        recipe: str = "",
    ) -> None:
        self._content: dict[str, Any] = {}
        self._began, self._first_step = 0.0, 0
        if not trainer.is_world_process_zero():
            return  # it writes nothing, and need not read the base's files
        # Not when training begins: an evaluation before may change how a CPU stores the weights.
        self._content = {
            **describe_model(trainer.model),
            "end_of_turn": list(end_of_turn),
            "recipe": _recipe(recipe, section),
            "versions": _versions(),
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write the record."""
        self._began, self._first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero:
            write_model_record(Path(str(args.output_dir)), self._content)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write the card; a trainer that writes its own later extends or is followed by ours.

        The record gets the steps and seconds of training; a record without them is of a run that
        did not end.
        """
        if state.is_world_process_zero:
            training = {
                "steps": state.global_step,
                "first_step": self._first_step,  # above 0: resumed; the seconds are from there on
                "seconds": round(
                    time.monotonic() - self._began, 2
                ),  # with evaluations after the start
            }
            write_model_record(Path(str(args.output_dir)), {**self._content, "training": training})
            write_run_card(Path(str(args.output_dir)))


def describe_model(model: Any) -> dict[str, Any]:
    """Return a model's base, its quantisation and the type of its weights, JSON-ready.

    Args:
        model: A model, or one with an adapter, as it is trained.
    """
    import torch

    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    config, counts = plain.config, Counter[str]()
    for name, weight in plain.named_parameters():
        # Of quantised weights, the type that they had before.
        kind = getattr(getattr(weight, "quant_state", None), "dtype", weight.dtype)
        if isinstance(kind, torch.dtype) and kind.is_floating_point and ".lora_" not in name:
            counts[str(kind).removeprefix("torch.")] += weight.numel()
    quantization: Any = getattr(config, "quantization_config", None)
    if hasattr(quantization, "to_dict"):
        quantization = quantization.to_dict()
    name = str(getattr(config, "_name_or_path", "") or "")
    revision = getattr(config, "_commit_hash", None)
    adapters = getattr(model, "peft_config", None) or {}
    kinds = [str(getattr(each.peft_type, "value", each.peft_type)) for each in adapters.values()]
    base = {"name": name, "revision": revision}
    with suppress(OSError, ValueError, KeyError):  # files of a kind that has no digest
        base |= base_fingerprint(name, revision)
    return {
        "base": base,
        "adapter": kinds[0] if kinds else None,
        "dtype": counts.most_common(1)[0][0] if counts else None,
        "quantization": json.loads(json.dumps(quantization, default=str)),
    }


def _recipe(path: str, section: AgentTuningSection) -> dict[str, Any]:
    file = Path(path or sys.argv[0])
    text = file.read_text("utf-8", errors="replace") if path and file.is_file() else None
    return {
        "trainer": "axolotl" if path else "trl",
        "path": str(file) if file.is_file() else "",
        "text": text,
        "section": section.model_dump(mode="json", exclude_defaults=True),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
