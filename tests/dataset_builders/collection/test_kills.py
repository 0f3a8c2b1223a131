from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[2] / "support"
KILLS = 105


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_any_moment_every_task_ends_once_and_nothing_is_paid_twice(
    tmp_path: Path,
) -> None:
    pytest.importorskip("openai")  # Of the client that is killed.
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                SUPPORT / "killed_runs.py",
                tmp_path / seed,
                str(KILLS),
                seed,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(SUPPORT.parents[1]), "OMP_NUM_THREADS": "1"},
        )
        for seed in ("1", "2")
    ]
    found = []
    for process in processes:
        output, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        found.append(json.loads(output))
    assert sum(each["kills"] for each in found) >= 200
    # Some hit in the middle of a request, else nothing would have been tried.
    assert sum(each["lost_in_flight"] for each in found) >= 20
