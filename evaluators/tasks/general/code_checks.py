"""Programs that models wrote, run against tests in a box of the sandbox, never bare."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from dataset_builders.sandbox.base import Limits, Sandbox, SandboxError
from dataset_builders.sandbox.engines import open_sandbox

SECONDS = 8.0
"""Time for a program and all its tests; Chen et al. give 3 s on a machine of their own."""
_MEMORY = 512 * 1024**2
_LIMITS = Limits(memory=1024**3, disk=64 * 1024**2, processes=96)
_SPARE_SECONDS = 20.0
_SOURCE = Path(__file__).with_name("boxed_check.py")
_CHECKS_PER_BOX = 50


@dataclass(frozen=True, slots=True)
class Checked:
    """How a program did.

    Attributes:
        passed: Whether it passed all tests.
        why: What went wrong, in one line; "" where nothing did.
    """

    passed: bool
    why: str = ""


class CodeChecker:
    """Runs programs, each in processes of its own; a context manager, since it holds a box.

    A box serves several checks, and is replaced as soon as one has not ended in order, so
    that what a program breaks harms no other.

    Args:
        seconds: Time for a program and all its tests.

    Raises:
        MissingExtraError: No box can be made here; the message says what is missing.
        SandboxError: The box cannot be made.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._source = _SOURCE.read_text("utf-8")
        self._box: Sandbox | None = open_sandbox(_LIMITS)
        self._checks = 0

    def __enter__(self) -> CodeChecker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def check(self, code: str, entry_point: str, test: str, helpers: str = "") -> Checked:
        """Run a program's function against tests.

        Args:
            code: The program.
            entry_point: Its function.
            test: Trusted source that defines `check(candidate)`, which raises where it fails.
            helpers: Trusted source of functions that the tests use.

        Raises:
            SandboxError: A box cannot be made; not the program's fault.
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
        told = self._run(json.dumps(job))
        if told.get("token") != token:
            return Checked(False, "the check was cut off")
        return Checked(told["passed"] is True, str(told["why"]).replace("\n", " "))

    def _run(self, job: str) -> dict[str, Any]:
        if self._checks >= _CHECKS_PER_BOX:
            self._close()
        if self._box is None:
            self._box = open_sandbox(_LIMITS)
        self._checks += 1
        command = ["/usr/bin/python3", "-I", "-c", self._source, "judge", self._source]
        try:
            done = self._box.exec(command, job, timeout=self._seconds + _SPARE_SECONDS)
            told = json.loads(done.stdout)
        except (SandboxError, ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            self._close()
            return {}
        return told

    def _close(self) -> None:
        box, self._box, self._checks = self._box, None, 0
        if box is not None:
            box.close()
