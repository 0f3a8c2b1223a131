"""Run programs written by models against tests, only in a sandbox."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_builders.sandbox.base import Limits, Sandbox, SandboxError
from dataset_builders.sandbox.engines import open_sandbox

SECONDS = 8.0
"""Time limit of a program and all its tests; Chen et al. use 3 s on a dedicated machine."""
_MEMORY = 512 * 1024**2
_LIMITS = Limits(memory=1024**3, disk=64 * 1024**2, processes=96)
_SPARE_SECONDS = 20.0
_SOURCE = Path(__file__).with_name("boxed_check.py")
_CHECKS_PER_BOX = 50


@dataclass(frozen=True, slots=True)
class Checked:
    """Result of checking a program.

    Attributes:
        passed: Whether it passed all tests.
        why: What went wrong, in one line; "" if nothing did.
    """

    passed: bool
    why: str = ""


class CodeChecker:
    """Checks programs in a sandbox; a context manager, since it holds the sandbox.

    A sandbox serves several checks, and is replaced after one that did not end cleanly, so that a
    program cannot affect others.

    Args:
        seconds: Time for a program and all its tests.

    Raises:
        MissingExtraError: No sandbox can be created here; the message states what is missing.
        SandboxError: The sandbox cannot be created.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._source = _SOURCE.read_text("utf-8")
        self._box: Sandbox | None = open_sandbox(_LIMITS)
        self._checks = 0

    def __enter__(self) -> CodeChecker:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def check(self, code: str, entry_point: str, test: str, helpers: str = "") -> Checked:
        """Run a program's function against tests.

        Args:
            code: The program.
            entry_point: Its function.
            test: Trusted source that defines `check(candidate)`, which raises on failure.
            helpers: Trusted source of functions that the tests use.

        Raises:
            SandboxError: A sandbox cannot be created; not the program's fault.
        """
        token = secrets.token_hex(16)
        job = {
            "code": code,
            "entry_point": entry_point,
            "test": test,
            "helpers": helpers,
            "token": token,
            "seconds": self._seconds,
            "memory": _MEMORY,
        }
        verdict = self._run(json.dumps(job))
        if verdict.get("token") != token:
            return Checked(False, "the check was cut off")
        return Checked(verdict["passed"] is True, str(verdict["why"]).replace("\n", " "))

    def _run(self, job: str) -> dict[str, Any]:
        if self._checks >= _CHECKS_PER_BOX:
            self._close()
        if self._box is None:
            self._box = open_sandbox(_LIMITS)
        self._checks += 1
        command = ["/usr/bin/python3", "-I", "-c", self._source, "judge", self._source]
        try:
            done = self._box.exec(command, job, timeout=self._seconds + _SPARE_SECONDS)
            verdict = json.loads(done.stdout)
        except (SandboxError, ValueError, RecursionError):
            verdict = None
        if not isinstance(verdict, dict):
            self._close()
            return {}
        return verdict

    def _close(self) -> None:
        box, self._box, self._checks = self._box, None, 0
        if box is not None:
            box.close()
