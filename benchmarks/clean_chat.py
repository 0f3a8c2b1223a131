"""Speed of the cleaning of shared chats, and of its two heavy steps against libraries.

    python benchmarks/clean_chat.py [SHAREGPT.json] [--limit N]

Without a file, the public ShareGPT file of the demo is used (125 MB, fetched once). Times
are of the processor, on one core, so that a busy machine changes them little; ratios are
of one run. The peer for near duplicates, datasketch, is not a dependency of this project:
`pip install datasketch`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builders.cleaning.duplicates import NearDuplicates, shingle_hashes
from dataset_builders.cleaning.language import LanguageFilter, _identifier, _sample, language_of
from dataset_builders.cleaning.steps import Cleaner, Cleaning
from dataset_builders.formats.sharegpt import convert
from dataset_builders.readers.building import RecordDroppedError, build_from_files, collect
from dataset_builders.readers.files import Located, read_records
from dataset_builders.readers.report import SourceReport

THRESHOLD = 0.8


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a call and the processor's seconds that it took."""
    start = time.process_time()
    return work(), time.process_time() - start


def report_of(located: Located, clean: Cleaning, limit: int | None) -> SourceReport:
    """Clean conversations; what became of them."""
    cleaned = partial(convert, cleaner=Cleaner(clean))
    return collect(build_from_files(located, cleaned, label="sharegpt", limit=limit)).report


def steps(file: Path, limit: int | None) -> None:
    """What each step costs and does: all of them, then all but one."""
    located = Located(file.parent, (file,))
    bare, base = timed(lambda: report_of(located, Cleaning.none(), limit))
    full, whole = timed(lambda: report_of(located, Cleaning(), limit))
    print(f"no step:   {base:6.2f} s  kept {bare.kept:,} of {bare.read:,}")
    print(f"all steps: {whole:6.2f} s  kept {full.kept:,} of {full.read:,}")
    for name, value in (("language", None), ("near_duplicates", None), ("drop_duplicates", False)):
        without: dict[str, Any] = {name: value}
        _, seconds = timed(lambda w=without: report_of(located, Cleaning(**w), limit))
        print(f"  without {name}: {seconds:6.2f} s")
    print(json.dumps({"dropped": full.to_dict()["dropped"], "changed": full.changed}, indent=1))


def language(conversations: list[list[str]]) -> None:
    """The filter against the classifier on every conversation."""
    samples = [_sample(texts) for texts in conversations]
    _identifier()
    told, classifier = timed(lambda: [language_of(sample) for sample in samples])
    english = LanguageFilter("en")

    def passes(texts: list[str]) -> bool:
        try:
            english.check(texts)
        except RecordDroppedError:
            return False
        return True

    kept, ours = timed(lambda: [passes(texts) for texts in conversations])
    differ = sum(k != (t in ("", "en")) for k, t in zip(kept, told, strict=True))
    print(
        f"language: {ours:.2f} s, py3langid on all {classifier:.2f} s: {classifier / ours:.1f} x; "
        f"{differ} of {len(kept):,} told otherwise"
    )


def near_duplicates(texts: list[str]) -> None:
    """Ours against datasketch: time, and how right the pairs found are."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        print("near duplicates: no peer, pip install datasketch")
        return

    def theirs() -> set[int]:
        index, found = MinHashLSH(threshold=THRESHOLD, num_perm=128), set()
        for number, text in enumerate(texts):
            words = text.lower().split()
            shingles = [" ".join(words[n : n + 5]).encode() for n in range(len(words) - 4)]
            if len(shingles) < 50:
                continue
            sketch = MinHash(num_perm=128)
            sketch.update_batch(shingles)
            if index.query(sketch):
                found.add(number)
            else:
                index.insert(number, sketch)
        return found

    def ours() -> set[int]:
        near, found = NearDuplicates(THRESHOLD), set()
        for number, text in enumerate(texts):
            try:
                near.check(text, str(number))
            except RecordDroppedError:
                found.add(number)
        return found

    mine, seconds = timed(ours)
    other, peer = timed(theirs)
    print(
        f"near duplicates: {seconds:.2f} s, datasketch {peer:.2f} s: {peer / seconds:.1f} x; found "
        f"{len(mine):,} and {len(other):,}, {len(mine & other):,} by both"
    )
    print(f"  truly alike by {THRESHOLD}: ours {_right(texts, mine)}, only datasketch's "
          f"{_right(texts, other - mine)}, only ours {_right(texts, mine - other)}")  # fmt: skip


def _right(texts: list[str], found: set[int]) -> str:
    """How many of the texts have an earlier one that is truly alike."""

    def shingles(number: int) -> set[tuple[str, ...]]:
        words = texts[number].lower().split()
        return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}

    # Twenty sequences of each: a text that is alike has some of them.
    marks = {number: shingle_hashes(texts[number])[:: 1 + len(texts[number]) // 200][:20]
             for number in found}  # fmt: skip
    wanted = np.unique(np.concatenate([np.empty(0, np.uint64), *marks.values()]))
    holders = {int(mark): set[int]() for mark in wanted}
    for number, text in enumerate(texts):
        for mark in np.intersect1d(shingle_hashes(text), wanted):
            holders[int(mark)].add(number)
    right = 0
    for number, own in marks.items():
        mine = shingles(number)
        others = {other for mark in own for other in holders[int(mark)] if other < number}
        right += any(
            len(mine & theirs) >= THRESHOLD * len(mine | theirs) for theirs in map(shingles, others)
        )
    return f"{right} of {len(found)}"


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--limit", type=int, help="conversations to take")
    options = parser.parse_args()
    file = options.file
    if file is None:
        from agenttuning_plugin.demo.assets import chat_file

        file = chat_file(print)
    steps(file, options.limit)
    conversations = [
        [turn["value"] for turn in record.value["conversations"]] for record in read_records(file)
    ][: options.limit]
    language(conversations)
    near_duplicates(list(dict.fromkeys("\n".join(texts) for texts in conversations)))


if __name__ == "__main__":
    main()
