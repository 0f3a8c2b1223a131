"""Process of one arm: holds its lock, runs Axolotl's command, and writes the marker.

    python -m agenttuning_plugin.sweeps.arm_process SWEEP_FOLDER ARM

It ends Axolotl and itself when its standard input is closed, which also happens when the sweep's
process is killed. Exit status: Axolotl's, `BUSY` if another process has the arm, or `STOPPED`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from agenttuning_plugin.reports.model_record import read_model_record
from agenttuning_plugin.sweeps.checkpoints import last_checkpoint
from agenttuning_plugin.sweeps.state import (
    LOG_FILE,
    RECIPE_FILE,
    is_finished,
    locked,
    write_marker,
)
from dataset_builders.errors import AgentTuningError

BUSY = 75
"""Exit status: another process has the arm (EX_TEMPFAIL)."""

STOPPED = 130
"""Exit status: Axolotl was stopped before the end of training."""


def main(out: str, name: str) -> int:
    """Train an arm unless it is finished; return the exit status."""
    # Before anything is started: the group is what the watcher and the sweep end.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder = Path(out) / name
    with locked(Path(out), name) as held:
        if not held:
            return BUSY
        if is_finished(folder):
            return 0
        started = time.monotonic()
        status = _train(folder)
        if status == 0 and not has_ended(folder):
            # Axolotl ends so on SIGINT: it saves the model as it is, and no error is seen.
            return STOPPED
        if status == 0:
            write_marker(folder, time.monotonic() - started)
        return status


def has_ended(folder: Path) -> bool:
    """Whether the run in a folder ended by itself: its record states the steps of training."""
    return "training" in read_model_record(folder)


def command_of(folder: Path) -> list[str]:
    """Return Axolotl's command for an arm, which resumes from its last whole checkpoint."""
    command = [sys.executable, "-m", "axolotl.cli.train", str(folder / RECIPE_FILE)]
    if (checkpoint := last_checkpoint(folder)) is not None:
        command.append(f"--resume_from_checkpoint={checkpoint}")
    return command


def _train(folder: Path) -> int:
    command = command_of(folder)
    with (folder / LOG_FILE).open("ab") as log:
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _end_with_parent() -> None:
    while os.read(0, 64):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except AgentTuningError as error:
        sys.exit(f"error: {error}")
