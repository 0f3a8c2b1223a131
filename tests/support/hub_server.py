"""A stand-in for the Hugging Face hub on loopback: repositories, uploads and commits of models."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_local"


@dataclass
class Hub:
    """What the server holds.

    Attributes:
        address: Its address.
        visibility: Of each repository that was created.
        files: Content of each file by repository and name.
        commits: Messages.
    """

    address: str = ""
    visibility: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    _objects: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any]:
        """Answer a request as the hub does, with status and content."""
        if method == "PUT" and path.startswith("/objects/"):
            oid = path.removeprefix("/objects/")
            if hashlib.sha256(body).hexdigest() != oid:
                return 400, {"error": "another content than announced"}
            self._objects[oid] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/validate-yaml":
            content = json.loads(body)["content"]
            return 200, {"errors": [], "warnings": []} if content.startswith("---\n") else {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.visibility.setdefault(repo, asked.get("visibility"))
            return 200, {"url": f"{self.address}/{repo}", "name": repo}
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": list(map(self._place, _objects(body)))}
        repo = "/".join(path.split("/")[3:5])
        if repo not in self.visibility:
            return 404, {"error": "Repository not found"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return 200, {"files": [_mode(each) for each in files]}
        if "/commit/" in path:
            return 200, self._commit(repo, body)
        return 404, {"error": f"not served: {path}"}

    def _place(self, item: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.address}/objects/{item['oid']}"
        return {**item, "actions": {"upload": {"href": href, "header": {}}}}

    def _commit(self, repo: str, body: bytes) -> dict[str, Any]:
        held = self.files.setdefault(repo, {})
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.commits.append(value["summary"])
            elif entry["key"] == "file":
                held[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                held[value["path"]] = self._objects[value["oid"]]
        oid = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        return {"commitUrl": f"{self.address}/{repo}/commit/{oid}", "commitOid": oid}


def _objects(body: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(body)["objects"]
    return found


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    large = file["path"].endswith((".safetensors", ".bin"))
    mode = "lfs" if large else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """Serve an empty hub; yields what it holds."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "")
            path = self.path.partition("?")[0]
            status, content = hub.answer(self.command, path, body, token)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_PUT = do_GET = do_POST

        def log_message(self, format: str, *values: Any) -> None:
            del format, values

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
