"""A loopback endpoint that speaks the chat-completions protocol, well or badly.

Run as a program, with latency and reply, it prints its port and ends with its standard
input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dataset_builders.endpoints.requests import request_key

Messages = list[dict[str, Any]]


@dataclass
class Fault:
    """What is answered instead of a reply."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    wait: float = 0.0
    drop: bool = False
    drip: float = 0.0
    promised: int | None = None


@dataclass
class Endpoint:
    """Answers `reply(messages)`, unless `fault(number of the request)` says otherwise.

    No answer is sent as long as `hold(messages)`.
    """

    reply: Callable[[Messages], str | dict[str, Any]]
    fault: Callable[[int], Fault | None] = lambda number: None
    latency: float = 0.0
    usage: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    port: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    keep: bool = True
    blind: bool = False  # Requests are not even looked at.
    hold: Callable[[Messages], bool] = lambda messages: False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        lengths = [line for line in lines if line.lower().startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0].partition(":")[2])) if lengths else b""
        if lines[0].startswith("GET /count"):
            writer.write(_http(200, json.dumps(self.counts).encode()))
            await writer.drain()
            return True
        number = self.counts.total()
        # Counted as asked for, whatever becomes of it: that is what an endpoint bills.
        if self.blind:
            request: dict[str, Any] = {"model": "m", "messages": []}
            self.counts["all"] += 1
        else:
            request = json.loads(body)
            self.counts[request_key(request, 0)] += 1
        if self.keep:
            self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(writer, request, self.fault(number))
        finally:
            self.in_flight -= 1

    async def _answer(
        self, writer: asyncio.StreamWriter, request: dict[str, Any], fault: Fault | None
    ) -> bool:
        while self.hold(request["messages"]):
            await asyncio.sleep(0.01)
        if fault is None:
            if self.latency:
                await asyncio.sleep(self.latency)
            writer.write(_http(200, self._completion(request)))
            await writer.drain()
            return True
        await asyncio.sleep(fault.wait)
        if fault.drop:
            writer.transport.abort()
            return False
        body = fault.body or self._completion(request)
        sent = _http(fault.status, body, fault.headers, fault.promised)
        if not fault.drip:
            writer.write(sent)
        else:
            for byte in sent:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(fault.drip)
        await writer.drain()
        return fault.promised is None

    def _completion(self, request: dict[str, Any]) -> bytes:
        said = self.reply(request["messages"])
        message = {"role": "assistant", **({"content": said} if isinstance(said, str) else said)}
        reason = message.pop("finish_reason", "stop")
        words = sum(len(each["content"] or "") for each in request["messages"]) // 4
        # A turn that was cut has all the tokens that it may have, unless the reply says fewer.
        limit = request.get("max_tokens") or request.get("max_completion_tokens")
        count = limit if reason == "length" else len(str(said)) // 4
        usage = {
            "prompt_tokens": words,
            "completion_tokens": message.pop("completion_tokens", count),
        }
        content: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "finish_reason": reason, "message": message}],
        }
        if self.usage:
            content["usage"] = usage | {"total_tokens": sum(usage.values())}
        return json.dumps(content).encode()

    async def serve(self, ready: Callable[[], None]) -> None:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        async with server:
            await server.serve_forever()


def _http(
    status: int, body: bytes, headers: dict[str, str] | None = None, promised: int | None = None
) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body) if promised is None else promised}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Serve from a thread."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    task = loop.create_task(endpoint.serve(ready.set))

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            pending = asyncio.all_tasks(loop)
            for each in pending:
                each.cancel()
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield endpoint
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


SELECT = "Hm.\nAction: Operation\n```sql\nSELECT 1\n```"
ANSWER = "Done.\nAction: Answer\nFinal Answer: [1]"


def main() -> None:
    latency, text = float(sys.argv[1]), sys.argv[2]
    endpoint = Endpoint(reply=lambda messages: text, latency=latency, keep=False, blind=True)
    threading.Thread(target=_end_with_input, daemon=True).start()
    asyncio.run(endpoint.serve(lambda: print(endpoint.port, flush=True)))


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
