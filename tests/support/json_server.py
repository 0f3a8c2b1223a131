"""A loopback server that answers GET and POST requests with what a function says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@contextmanager
def serving_json(answer: Callable[[dict[str, Any]], Any]) -> Iterator[str]:
    """Serve `answer(parameters)` as JSON, or text as it is; yields the address.

    Parameters are those of the address, and of a JSON body.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked: dict[str, Any] = dict(parse_qsl(urlsplit(self.path).query))
            if length := int(self.headers.get("Content-Length", 0)):
                asked |= json.loads(self.rfile.read(length))
            told = answer(asked)
            body = told.encode() if isinstance(told, str) else json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *values: Any) -> None:
            del format, values

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
