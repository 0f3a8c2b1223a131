"""Page stores for `search`: a page by title, or else similar titles."""

from __future__ import annotations

import re
import sqlite3
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

SIMILAR = 5
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Page:
    """A page with its title.

    Attributes:
        title: Its title.
        text: Its text, one paragraph per line.
    """

    title: str
    text: str

    def sentences(self) -> list[str]:
        """Its sentences in order."""
        return [part for line in self.text.splitlines() for part in _split(line)]


def _split(paragraph: str) -> list[str]:
    return [part.strip() for part in _SENTENCE_END.split(paragraph) if part.strip()]


class PageStore(Protocol):
    """A collection of pages."""

    label: str
    """What it is, for the record of a score."""

    def find(self, entity: str) -> Page | list[str]:
        """Return the page with this title, or up to `SIMILAR` titles of related pages."""


class DistractorStore:
    """The paragraphs that come with the questions, searched by BM25.

    Far smaller than Wikipedia, so finding the right page is easier: its scores are not
    comparable with published ones.

    Args:
        paragraphs: Title and text of each; all with one title form its page.
    """

    label = "distractor docstore"

    def __init__(self, paragraphs: Iterable[tuple[str, str]]) -> None:
        pages: dict[str, dict[str, str]] = {}
        for title, text in paragraphs:
            pages.setdefault(title.casefold(), {}).setdefault(text, title)
        # Episodes on a server search from their own threads.
        self._searching = threading.Lock()
        self._base = sqlite3.connect(":memory:", check_same_thread=False)
        weakref.finalize(self, self._base.close)
        self._base.execute("CREATE VIRTUAL TABLE page USING fts5(title, text, key UNINDEXED)")
        self._base.executemany(
            "INSERT INTO page VALUES (?, ?, ?)",
            ((next(iter(texts.values())), "\n".join(texts), key) for key, texts in pages.items()),
        )
        self._rows = {key: row for row, key in enumerate(pages, 1)}

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, entity: str) -> Page | list[str]:
        """See `PageStore.find`; titles are compared ignoring case."""
        if row := self._rows.get(entity.strip().casefold()):
            ((title, text),) = self._select("SELECT title, text FROM page WHERE rowid = ?", (row,))
            return Page(title, text)
        words = dict.fromkeys(_WORD.findall(entity.casefold()))
        if not words:
            return []
        query = " OR ".join(f'"{word}"' for word in words)
        similar = self._select(
            "SELECT title FROM page WHERE page MATCH ? "
            "ORDER BY bm25(page, 3.0, 1.0), rowid LIMIT ?",
            (query, SIMILAR),
        )
        return [title for (title,) in similar]

    def _select(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        with self._searching:
            return self._base.execute(query, values).fetchall()
