"""`agenttuning build` twice gives equal bytes, and on a full disk nothing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.training_data.build import build_to_disk
from dataset_builders.errors import StorageError
from dataset_builders.manifest.store import MANIFEST_FILE, read_manifest
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import Encoding


def files(folder: Path) -> dict[str, bytes]:
    """Bytes of all that has to be equal; the manifest without `where`."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = {name: data for name, data in found.items() if not name.startswith("report.")}
    manifest = json.loads(found[MANIFEST_FILE])
    del manifest["where"]
    return {**found, MANIFEST_FILE: json.dumps(manifest).encode()}


def chats(path: Path, number: int, words: str) -> Path:
    rows = []
    for i in range(number):
        answer = {"role": "assistant", "content": f"{words} {i} " * (1 + i % 7)}
        asked = {"role": "user", "content": "go on"}
        rows.append({"id": f"{i}", "messages": [asked, answer]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("encoded", [True, False], ids=["tokens", "messages"])
def test_built_twice_all_bytes_are_equal(
    tmp_path: Path, tiny_model_dir: Path, encoded: bool
) -> None:
    from datasets import load_from_disk

    def built(name: str) -> Path:
        (tmp_path / name).mkdir()
        build_to_disk(
            tmp_path / name / "out",
            agent=[str(chats(tmp_path / name / "agent.jsonl", 9, "act"))],
            general=[str(chats(tmp_path / name / "general.jsonl", 30, "talk"))],
            plan=Plan(eta=0.25, block=8),
            num_examples=70,
            seed=3,
            tokenizer=str(tiny_model_dir) if encoded else None,
            encoding=Encoding(max_length=256) if encoded else None,
        )
        return tmp_path / name / "out"

    one, two = built("one"), built("two")
    assert files(one) == files(two)
    assert len(files(one)) == (7 if encoded else 6)
    manifest = read_manifest(one)
    assert manifest.where["agent"] == [str(tmp_path / "one" / "agent.jsonl")]
    assert manifest.content["general"]["sources"][0]["records_kept"] == 30
    assert manifest.order.num_examples == len(load_from_disk(str(one))) == 70


@pytest.mark.slow
def test_real_data_built_twice_all_bytes_are_equal(shared: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_to_disk(
            tmp_path / name,
            agent=[str(shared / "data/agentinstruct")],
            general=[str(shared / "data/sharegpt/sharegpt_v3_sample.json")],
            plan=Plan(eta=0.2),
            num_examples=2000,
            seed=7,
            tokenizer=str(shared / "data/tokenizers/smollm2"),
            encoding=Encoding(max_length=4096),
        )
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(os.name != "posix", reason="mounts a tmpfs")
def test_a_full_disk_is_told_and_nothing_is_left(small_disk: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "agent": [],
        "general": [str(chats(tmp_path / "general.jsonl", 300, "talk"))],
        "plan": Plan(eta=0.0),
        "num_examples": 3000,
        "seed": 0,
    }
    with pytest.raises(StorageError, match="No space left on device") as caught:
        build_to_disk(small_disk / "out", **options)
    assert "\n" not in str(caught.value)
    assert list(small_disk.iterdir()) == []
    # The same fits elsewhere: it was the room that was missing.
    build_to_disk(tmp_path / "out", **options)
    assert read_manifest(tmp_path / "out").order.num_examples == 3000
