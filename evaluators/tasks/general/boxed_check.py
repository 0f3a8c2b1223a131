"""Script that runs an untrusted program against its tests, only ever inside a sandbox.

Two processes. The first one (root in the sandbox) has the tests and judges; the second (an
unprivileged user) has the program and only answers calls. They exchange plain values, so that the
program can neither see the tests nor tamper with the judge: objects that claim to equal everything,
patched modules, an early exit or a printed verdict have no effect. Uses only the standard library;
the source is run by the sandbox's own Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import time
from typing import Any

NOBODY = 65534
_LONGEST_REPLY = 32 * 1024**2
_PROTOCOL_IN, _PROTOCOL_OUT = 10, 11


def encode(value: Any) -> Any:
    """Encode a value as JSON with its type; subclasses become their builtin base."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, dict):
        return ["dict", *([encode(k), encode(v)] for k, v in value.items())]
    for box in (list, tuple, set, frozenset):
        if isinstance(value, box):
            return [box.__name__, *map(encode, value)]
    raise TypeError(f"a value of type {type(value).__name__} cannot be handed over")


def decode(encoded: Any) -> Any:
    """Decode a value, always to builtin types."""
    if not isinstance(encoded, list):
        if isinstance(encoded, dict):
            raise TypeError("no value")
        return encoded
    name, *parts = encoded
    if name == "complex":
        return complex(float(parts[0]), float(parts[1]))
    if name == "dict":
        return {decode(key): decode(value) for key, value in parts}
    kinds: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    return kinds[name](map(decode, parts))


class Program:
    """The program in its own process, and calls of its function.

    Args:
        job: `code`, `entry_point` and the `memory` it may use in bytes.
        deadline: Time on the monotonic clock after which it is abandoned.
    """

    def __init__(self, job: dict[str, Any], deadline: float) -> None:
        self._deadline = deadline
        self._rest = b""
        memory = job["memory"]

        def humble() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024**2, 1024**2))

        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", job["source"], "answer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/tmp",
            env={"PATH": "/usr/bin:/bin", "HOME": "/tmp"},
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            preexec_fn=humble,
        )
        self._ask({"code": job["code"], "entry_point": job["entry_point"]})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function in that process."""
        return decode(self._ask({"args": encode(args), "kwargs": encode(kwargs)}))

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise RuntimeError("the program has ended") from None
        reply = json.loads(self._line())
        if "error" in reply:
            raise RuntimeError(str(reply["error"])[:300])
        return reply["value"]

    def _line(self) -> bytes:
        assert self._process.stdout
        while b"\n" not in self._rest:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError("timed out")
            some = os.read(self._process.stdout.fileno(), 1024**2)
            if not some:
                raise RuntimeError("the program has ended")
            self._rest += some
            if len(self._rest) > _LONGEST_REPLY:
                raise RuntimeError("the program returned too much")
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def judge() -> None:
    """Read a job from standard input, write whether the program passes its tests."""
    job = json.loads(sys.stdin.read())
    job["source"] = sys.argv[2]
    sys.set_int_max_str_digits(0)
    random.seed(0)
    passed, why = False, ""
    try:
        program = Program(job, time.monotonic() + job["seconds"])
        # Some tests call the function by its name.
        names: dict[str, Any] = {"__name__": "tests", job["entry_point"]: program}
        exec(job["helpers"] + "\n" + job["test"], names)
        names["check"](program)
        passed = True
    except BaseException as error:  # Any exception means that it has not passed.
        why = f"{type(error).__name__}: {error}"[:400]
    sys.stdout.write(json.dumps({"token": job["token"], "passed": passed, "why": why}))
    sys.stdout.flush()
    # Everything that the program left running: no fork can escape this.
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def answer() -> None:
    """Run the program and answer calls of its function."""
    # Its own output is discarded and its input empty, so that neither mixes with the calls.
    os.dup2(0, _PROTOCOL_IN)
    os.dup2(1, _PROTOCOL_OUT)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    calls, replies = os.fdopen(_PROTOCOL_IN), os.fdopen(_PROTOCOL_OUT, "w")
    job = json.loads(calls.readline())
    sys.set_int_max_str_digits(0)
    names: dict[str, Any] = {"__name__": "program"}
    function: Any = None
    request = None
    while True:
        try:
            if request is None:
                exec(job["code"], names)
                function, value = names[job["entry_point"]], None
            else:
                value = function(*decode(request["args"]), **decode(request["kwargs"]))
            reply = json.dumps({"value": encode(value)})
        except BaseException as error:  # An exit of the program is an answer like any other.
            reply = json.dumps({"error": f"{type(error).__name__}: {error}"[:300]})
        replies.write(reply + "\n")
        replies.flush()
        line = calls.readline()
        if not line:
            return
        request = json.loads(line)


if __name__ == "__main__":
    {"judge": judge, "answer": answer}[sys.argv[1]]()
