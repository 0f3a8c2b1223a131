"""Find a trained model on disk, and refuse one that cannot be merged, before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.model_record import base_fingerprint, json_object, read_model_record
from dataset_builders.errors import ConfigError, SourceNotFoundError

ADAPTER_CONFIG = "adapter_config.json"

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_QUANTIZED = ("load_in_4bit", "load_in_8bit")
_MERGEABLE = ("LORA", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "IA3", "HRA", "VERA", "RANDLORA")


@dataclass(frozen=True)
class TrainedModel:
    """A trained model on disk.

    Attributes:
        folder: Folder with the adapter, or the weights of a full fine-tune.
        run: Output folder of the run: `folder`, or its parent for a checkpoint.
        base: Folder or hub id of the base model; "" for a full fine-tune.
        revision: Revision of the hub id.
        adapter: Content of `adapter_config.json`; empty for a full fine-tune.
        record: Content of `agenttuning_model.json`; empty if the run has none.
        quantization: Settings of bitsandbytes with which the base was loaded; empty if it was not
            quantised.
        dtype: Type of the base's weights in training, such as "bfloat16"; None if unknown.
        is_known: Whether the folder tells how the base was loaded.
    """

    folder: Path
    run: Path
    base: str
    revision: str | None
    adapter: Mapping[str, Any]
    record: Mapping[str, Any]
    quantization: Mapping[str, Any]
    dtype: str | None
    is_known: bool

    @property
    def end_of_turn(self) -> tuple[str, ...]:
        """Tokens beside eos that end a turn."""
        return tuple(self.record.get("end_of_turn") or ())


def find_trained(place: Path, base: str | None = None) -> TrainedModel:
    """Find a trained model.

    Args:
        place: Output folder of a run, one of its checkpoints, or the folder of an adapter.
        base: Where the base model is now; by default as the adapter's config says.

    Raises:
        SourceNotFoundError: The folder holds no model.
        ConfigError: The base is another one than in training, was quantised in a way that cannot be
            restored, or the adapter is of a kind that has no merged form.
        DataError: The run's record, the adapter's config or a file of the base is damaged.
    """
    folder = place.expanduser()
    if not folder.is_dir():
        raise SourceNotFoundError(f"{place}: no such folder; expected the output of a run")
    run = folder.parent if folder.name.startswith("checkpoint-") else folder
    record = read_model_record(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        _check_weights(folder)
        if base is not None:
            raise ConfigError(f"`base`: found {base}, but {folder} has all weights, not an adapter")
        return TrainedModel(folder, run, "", None, {}, record, {}, None, True)
    adapter = json_object(folder / ADAPTER_CONFIG)
    _check_kind(folder, adapter)
    known_base = record.get("base") or {}
    trained = str(adapter.get("base_model_name_or_path") or known_base.get("name") or "")
    if not (base or trained):
        raise ConfigError(f"{folder / ADAPTER_CONFIG}: base_model_name_or_path: found nothing")
    revision = known_base.get("revision") if base in (None, trained) else None
    chosen = str(Path(base or trained).expanduser()) if base or trained else ""
    _check_base(chosen, trained, revision, record)
    saved = json_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    key = "quantization" if record else "quantization_config"
    quantization = (record or saved).get(key) or {}
    _check_quantization(folder, quantization)
    dtype = record.get("dtype") or saved.get("dtype") or saved.get("torch_dtype")
    known = key in record if record else bool(saved)
    return TrainedModel(folder, run, chosen, revision, adapter, record, quantization, dtype, known)


def _check_weights(folder: Path) -> None:
    if any(file for pattern in _WEIGHTS for file in folder.glob(pattern)):
        return
    found = [each for each in folder.glob("checkpoint-*") if each.name[11:].isdecimal()]
    checkpoints = sorted(found, key=lambda each: int(each.name[11:]))
    hint = f"; try {checkpoints[-1]}" if checkpoints else ""
    raise SourceNotFoundError(f"{folder}: found neither an adapter nor model weights{hint}")


def _check_kind(folder: Path, adapter: Mapping[str, Any]) -> None:
    kind = str(adapter.get("peft_type"))
    if kind not in _MERGEABLE:
        raise ConfigError(
            f"{folder / ADAPTER_CONFIG}: peft_type: found {kind}, which has no merged form, "
            "expected LoRA or another adapter of weights"
        )


def _check_base(base: str, trained: str, revision: str | None, record: Mapping[str, Any]) -> None:
    """Compare the base with the trained one: by digest, or by name where none is recorded."""
    known = record.get("base") or {}
    found = base_fingerprint(base, revision)
    if found["config"] is None and Path(base).is_dir():
        raise SourceNotFoundError(f"{base}: found no config.json, expected the base model")
    expected = {key: known.get(key) for key in found}
    if not any(expected.values()) and base != str(Path(trained).expanduser()):
        expected = base_fingerprint(trained)
        if not any(expected.values()) and Path(base).name != Path(trained).name:
            raise ConfigError(f"`base`: found {base}, but the adapter was trained on {trained}")
    for key, what in (("config", "config.json"), ("weights", "weights")):
        if found[key] and expected[key] and found[key] != expected[key]:
            raise ConfigError(
                f"{base}: its {what} differs from the base of the run ({trained}), expected the "
                "model that was trained; name it with `base`"
            )


def _check_quantization(folder: Path, quantization: Mapping[str, Any]) -> None:
    if quantization and not any(quantization.get(key) for key in _QUANTIZED):
        method = quantization.get("quant_method")
        raise ConfigError(
            f"{folder}: the base was quantised with {method}, expected bitsandbytes (4 or 8 bits) "
            "or none: other methods cannot be merged here"
        )
