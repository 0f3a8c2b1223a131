"""FB15k-237's published files become the slice that the documentation describes."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from dataset_builders.environments.knowledge_graph.fb15k import convert
from dataset_builders.errors import DataError

VALID = 17_535
"""Validation triples of FB15k-237; they come first in the slice."""


def unpacked(path: Path) -> str:
    return lzma.decompress(path.read_bytes()).decode()


def write(folder: Path, valid: str, test: str, names: object) -> None:
    source = folder / "fb15k-237"
    source.mkdir(parents=True)
    (source / "valid.txt").write_text(valid)
    (source / "test.txt").write_text(test)
    (source / "entity2wikidata.json").write_text(json.dumps(names))


def test_the_slice_is_the_one_that_was_measured(shared: Path, tmp_path: Path) -> None:
    slice_ = shared / "data/freebase_slice"
    lines = unpacked(slice_ / "triples.tsv.xz").splitlines(keepends=True)
    labels = [row.split("\t") for row in unpacked(slice_ / "labels.tsv.xz").splitlines()]
    names = {entity: {"label": name} for entity, name in reversed(labels)}
    write(tmp_path, "".join(lines[:VALID]), "".join(lines[VALID:]), names)
    said: list[str] = []
    convert(tmp_path, said.append)
    for name in ("triples.tsv.xz", "labels.tsv.xz"):
        assert unpacked(tmp_path / name) == unpacked(slice_ / name)
    assert len(said) == 1
    convert(tmp_path, said.append)
    assert len(said) == 1


def test_names_are_of_entities_in_a_triple_and_in_one_line(tmp_path: Path) -> None:
    names = {"/m/a": {"label": "An\ta\n"}, "/m/b": {"label": None}, "/m/c": {"label": "Far"}}
    write(tmp_path, "/m/a\t/x/y/z\t/m/b\n", "", names)
    convert(tmp_path, lambda _: None)
    assert unpacked(tmp_path / "labels.tsv.xz") == "/m/a\tAn a\n"


@pytest.mark.parametrize(
    ("valid", "names", "expected"),
    [
        ("/m/a /x/y/z /m/b\n", {}, "valid.txt: line 1: found 1 fields, expected head"),
        ("/m/a\t\t/m/b\n", {}, "valid.txt: line 1: found 3 fields, one empty"),
        ("/m/a\t/x/y/z\t/m/b\n", ["/m/a"], "entity2wikidata.json: .*expected entities with a"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, valid: str, names: object, expected: str) -> None:
    write(tmp_path, valid, "", names)
    with pytest.raises(DataError, match=expected):
        convert(tmp_path, lambda _: None)
    assert not (tmp_path / "triples.tsv.xz").exists()
