"""A small made-up graph for the tests, and a SPARQL server that holds it."""

from __future__ import annotations

import lzma
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

RELATIONS = {
    "/film/film/genre": ("f", "g", 4),
    "/film/film/country": ("f", "c", 2),
    "/film/actor/film./film/performance/film": ("p", "f", 6),
    "/people/person/profession": ("p", "j", 4),
    "/people/person/nationality": ("p", "c", 2),
    "/location/country/neighbors": ("c", "c", 5),
    "/location/country/official_language": ("c", "l", 3),
}
"""Relation to the kinds of its heads and tails, and the most tails a head has."""

_KINDS = {"f": 60, "p": 80, "c": 40, "g": 12, "j": 12, "l": 10}


def write_slice(folder: Path) -> Path:
    """A slice of 214 entities; the same on every call."""
    rng = random.Random("graph samples")
    names = {kind: [f"/m/{kind}{i:02d}" for i in range(n)] for kind, n in _KINDS.items()}
    triples = [
        (head, relation, tail)
        for relation, (heads, tails, most) in RELATIONS.items()
        for head in names[heads]
        for tail in rng.sample(names[tails], rng.randint(1, most))
    ]
    rows = [(name, f"Name {name[3:]}") for of_kind in names.values() for name in of_kind]
    write_rows(folder / "triples.tsv.xz", triples)
    write_rows(folder / "labels.tsv.xz", rows)
    return folder


def write_rows(path: Path, rows: list[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.writelines("\t".join(row) + "\n" for row in rows)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a batch of episodes asks at once


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        import pyoxigraph

        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        answer = self.server.answer  # type: ignore[attr-defined]
        if isinstance(answer, bytes):
            content, status = answer, 200
        elif isinstance(answer, int):
            content, status = b"Virtuoso 42000\nout of  memory", answer
        elif isinstance(answer, float):
            time.sleep(answer)
            return
        else:
            query = parse_qs(body)["query"][0]
            found = answer.query(query)
            content = found.serialize(format=pyoxigraph.QueryResultsFormat.JSON)
            status = 200
        self.send_response(status)
        self.send_header("Content-Type", "application/sparql-results+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def sparql_server(answer: object) -> Iterator[str]:
    """Serve a pyoxigraph store by SPARQL, or: bytes to say, a status, seconds of silence."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.answer = answer  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/sparql"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
