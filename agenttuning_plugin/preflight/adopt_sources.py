"""Convert entries of Axolotl's `datasets` to sources of general data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.errors import ConfigError

# Keys of an entry and the values with which its rows are trained on as before.
_ANY = object()
_EXPECTED: dict[str, tuple[Any, ...]] = {
    "path": (_ANY,),
    "type": (_ANY,),
    "split": (_ANY,),
    "data_files": (_ANY,),
    "revision": (_ANY,),
    "ds_type": ("json", "jsonl", "parquet", "csv", "arrow"),
    "conversation": (_ANY,),  # a former template's name, replaced by the section's own
    "field_messages": ("messages", "conversations"),
    "message_property_mappings": (_ANY,),
    "message_field_role": ("role", "from"),
    "message_field_content": ("content", "value"),
    "message_field_training": ("train", "training", "loss"),
    "roles_to_train": (["assistant"], ["gpt"], ["assistant", "gpt"], ["gpt", "assistant"]),
    "train_on_eos": ("turn",),
    "train_on_eot": ("turn",),
    "chat_template": ("tokenizer_default",),
    "field_tools": ("tools",),
    "field_system": ("system",),
    "trust_remote_code": (False,),
    "drop_system_message": (False,),
    "shards": (1,),
}
_SLICE = re.compile(r"([\w.-]+)(?:\[:(\d+)\])?")
_SHAREGPT = ({"role": "from", "content": "value"}, ("from", "value"))
_MESSAGES = ({"role": "role", "content": "content"}, ("role", "content"))


class UntranslatableError(ConfigError):
    """Entries that cannot be expressed as sources.

    Attributes:
        lines: What, and why, one line each.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def sources_of(datasets: Any, notes: list[str]) -> list[dict[str, Any]]:
    """Convert the entries.

    Args:
        datasets: Axolotl's `datasets`.
        notes: Receives one line for everything that is rendered differently than before.

    Raises:
        UntranslatableError: There is none, or some cannot be translated.
    """
    if not isinstance(datasets, list) or not datasets:
        raise UntranslatableError(["datasets: found none, expected a list of data sets"])
    found: list[dict[str, Any]] = []
    wrong: list[str] = []
    for number, entry in enumerate(datasets):
        try:
            found += _translate(entry, notes)
        except ValueError as error:
            wrong.append(f"datasets.{number}: {error}")
    if wrong:
        raise UntranslatableError(wrong)
    return found


def _translate(entry: Any, notes: list[str]) -> list[dict[str, Any]]:
    if not isinstance(entry, Mapping) or not entry.get("path"):
        raise ValueError(f"found {entry!r}, expected an entry with a path")
    for key, value in entry.items():
        if value is None:
            continue
        expected = _EXPECTED.get(str(key), ())
        if not any(each is _ANY or each == value for each in expected):
            listed = " or ".join(repr(each) for each in expected)
            wish = f"expected {listed}" if listed else "which a source cannot express"
            raise ValueError(f"{key}: found {value!r}, {wish}: convert the records first")
    source = {**_format(entry, notes), **_split(entry)}
    if entry.get("revision"):
        source["revision"] = entry["revision"]
    return [{"path": path, **files, **source} for path, files in _places(entry)]


def _places(entry: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return path and `data_files`; a dataset loader's name is replaced by its files."""
    path, files = str(entry["path"]), entry.get("data_files") or []
    names = [files] if isinstance(files, str) else [str(name) for name in files]
    if path in ("json", "parquet", "csv", "arrow", "text"):
        if not names:
            raise ValueError(f"path: found {path!r} without data_files, expected a data set")
        return [(name, {}) for name in names]
    return [(path, {"data_files": names} if names else {})]


def _split(entry: Mapping[str, Any]) -> dict[str, Any]:
    split = entry.get("split")
    if split is None:
        return {}
    parts = _SLICE.fullmatch(str(split))
    if not parts:
        raise ValueError(f"split: found {split!r}, expected a name, or one with [:N]")
    names = [part for part in str(parts[1]).split("+") if part]
    # A single file has the split `train` and no other.
    single = str(entry["path"]).rpartition(".")[2] in ("json", "jsonl", "parquet", "gz", "zst")
    single = single or str(entry["path"]) in ("json", "parquet")
    found: dict[str, Any] = {} if single and names == ["train"] else {"splits": names}
    return found | ({"limit": int(parts[2])} if parts[2] else {})


def _format(entry: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    kind = entry.get("type")
    if not isinstance(kind, str):
        raise ValueError(
            f"type: found {kind!r}, expected chat_template, alpaca or sharegpt: a custom "
            "prompt cannot be expressed; convert the records to messages"
        )
    name = kind.partition(".")[0].partition(":")[0]
    if name == "alpaca" and kind == name:
        notes.append(
            f"{entry['path']}: alpaca records are rendered by the chat template, not by Alpaca's "
            "prompt"
        )
        return {"format": "alpaca"}
    if name == "sharegpt":
        return {"format": "sharegpt", "clean": False}
    if name == "chat_template":
        return _chat(entry)
    raise ValueError(
        f"type: found {kind!r}, expected chat_template, alpaca or sharegpt: write the records as "
        "messages"
    )


def _chat(entry: Mapping[str, Any]) -> dict[str, Any]:
    mapping = entry.get("message_property_mappings")
    fields = (entry.get("message_field_role"), entry.get("message_field_content"))
    mappings: Sequence[Any] = [each for each in (mapping, fields) if each and each != (None, None)]
    turns = entry.get("field_messages") or "messages"
    flag = entry.get("message_field_training")
    if all(each in _MESSAGES for each in mappings):
        return {"format": "messages"}
    if all(each in _SHAREGPT for each in mappings):
        if flag == "loss":
            return {"format": "agentinstruct"}
        if flag or turns != "conversations":
            raise ValueError(
                f"field_messages {turns!r} with {mappings[0]!r} and training flags {flag!r}: "
                "expected turns under `conversations`, with no flag or `loss`"
            )
        return {"format": "sharegpt", "clean": False}
    raise ValueError(
        f"message_property_mappings: found {mappings[0]!r}, expected role and content, or from and "
        "value"
    )
