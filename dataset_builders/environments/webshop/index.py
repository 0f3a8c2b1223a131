"""Product index in one SQLite file, searched by BM25.

WebShop searches with Lucene (pyserini, BM25 with k1 0.9 and b 0.4). Here it is SQLite's
FTS5, whose BM25 has k1 1.2 and b 0.75, with Lucene's analysis (Porter stemming, its English stop
words), so ranks differ slightly.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset_builders.environments.webshop.catalogue import Product, Wish
from dataset_builders.errors import StorageError

MAX_HITS = 50
"""Maximum products that WebShop shows for a search, over all its pages."""

_VERSION = 2  # version of the file's format; another version is rebuilt
_MAX_WORDS = 256

# Lucene's EnglishAnalyzer, whose list this is, drops them from queries and texts.
_STOP_WORDS_TEXT = (
    "a an and are as at be but by for if in into is it no not of on or such that the their "
    "then there these they this to was will with "
)
_STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())
# Lucene keeps "310.00" and "l'eau" whole; quoted, FTS5 takes them as a phrase.
_WORD = re.compile(r"[^\W_]+(?:[.,'’][^\W_]+)*")  # noqa: RUF001


def content_words(text: str) -> list[str]:
    """Return the words of a query or a product's text: lower case, without stop words."""
    return [word for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


def digest(files: Sequence[Path]) -> str:
    """Return the name of the index of these files: a hash of their content."""
    state = hashlib.blake2b(str(_VERSION).encode(), digest_size=12)
    for file in files:
        state.update(file.name.encode())
        with file.open("rb") as handle:
            while block := handle.read(2**20):
                state.update(block)
    return state.hexdigest()


def build_index(products: Iterable[Product], file: Path) -> None:
    """Write the index atomically.

    Raises:
        StorageError: The file cannot be written.
        DataError: A product is invalid.
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(part)
        try:
            with connection:
                _fill(connection, products)
        finally:
            connection.close()
        part.replace(file)
    except (OSError, sqlite3.OperationalError) as error:
        raise StorageError(f"{file}: the products' index cannot be written: {error}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _fill(connection: sqlite3.Connection, products: Iterable[Product]) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE products (asin TEXT UNIQUE, wished INTEGER, data TEXT)")
    connection.execute(
        "CREATE VIRTUAL TABLE texts USING fts5(text, content='', tokenize='porter unicode61')"
    )
    for number, product in enumerate(products, 1):
        wished = bool(product.wish or product.human_wishes)
        data = json.dumps(asdict(product))
        connection.execute(
            "INSERT INTO products (rowid, asin, wished, data) VALUES (?, ?, ?, ?)",
            (number, product.asin, wished, data),
        )
        words = " ".join(content_words(product.document))
        connection.execute("INSERT INTO texts (rowid, text) VALUES (?, ?)", (number, words))


class ProductIndex:
    """An index opened for reading; can be shared between threads.

    Args:
        file: File written by `build_index`.
    """

    def __init__(self, file: Path) -> None:
        self._uri = f"{file.resolve().as_uri()}?mode=ro&immutable=1"

    def search(self, query: str) -> tuple[str, ...]:
        """Return ids of at most `MAX_HITS` products that share a word, best first."""
        words = content_words(query)[:_MAX_WORDS]
        if not words:
            return ()
        match = " OR ".join(f'"{word}"' for word in words)
        with closing(self._open()) as database:
            rows = database.execute(
                "SELECT asin FROM products JOIN (SELECT rowid AS number, rank AS score FROM texts "
                "WHERE texts MATCH ? ORDER BY rank LIMIT ?) ON products.rowid = number "
                "ORDER BY score, number",
                (match, MAX_HITS),
            )
            return tuple(asin for (asin,) in rows)

    def product(self, asin: str) -> Product:
        """Return the product with an id; KeyError if there is none."""
        select = "SELECT data FROM products WHERE asin = ?"
        with closing(self._open()) as database:
            row = database.execute(select, (asin,)).fetchone()
        if row is None:
            raise KeyError(asin)
        return _from_json(row[0])

    def wished(self) -> Iterator[Product]:
        """Return the products that are wished for, in the catalogue's order."""
        select = "SELECT data FROM products WHERE wished ORDER BY rowid"
        with closing(self._open()) as database:
            for (data,) in database.execute(select):
                yield _from_json(data)

    def _open(self) -> sqlite3.Connection:
        # One per look-up: a connection belongs to the thread that opened it, and a thread-local one
        # would never be closed.
        return sqlite3.connect(self._uri, uri=True)


def _from_json(text: str) -> Product:
    data = json.loads(text)
    for name in ("features", "prices", "attributes"):
        data[name] = tuple(data[name])
    data["options"] = {name: tuple(values) for name, values in data["options"].items()}
    data["wish"] = _wish(data["wish"]) if data["wish"] else None
    data["human_wishes"] = tuple(map(_wish, data["human_wishes"]))
    return Product(**data)


def _wish(data: dict[str, Any]) -> Wish:
    options = data["options"]
    attributes = tuple(data["attributes"])
    return Wish(data["text"], attributes, None if options is None else tuple(options))
