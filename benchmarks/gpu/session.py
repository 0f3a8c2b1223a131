"""All parts one after another within a time limit, and the file of their results."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu.budget import allowance, run_part
from benchmarks.gpu.cases import ATTENTIONS, Part, parts
from benchmarks.gpu.report import memory_rows

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SMALLEST = 5.0
"""A part that would get fewer seconds is not started."""


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def run_all(chosen: Sequence[Part], seconds: float, folder: Path) -> dict[str, Any]:
    """Run parts in their order within the time and return their results by name."""
    begun = time.monotonic()
    results: dict[str, Any] = {}
    for number, part in enumerate(chosen):
        left = seconds - (time.monotonic() - begun)
        allowed = allowance(part, chosen[number + 1 :], left)
        if allowed < SMALLEST:
            results[part.name] = {"status": "out of time", "error": f"{left:.0f} s were left"}
        else:
            results[part.name] = run_part(part, allowed, folder)
        ended = results[part.name]
        print(f"{part.name:12}{ended['status']:12}{ended.get('seconds', 0):7.1f} s", end="  ")
        print(_headline(ended), flush=True)
    return results


def _headline(result: dict[str, Any]) -> str:
    measured = result.get("measured") or {}
    if "ratio" in measured:
        rates = [f"{side} {measured[side]['tokens_per_second']:.0f}" for side in ("trl", "plugin")]
        return f"tokens/s: {', '.join(rates)}; ratio {measured['ratio']:.3f}"
    if "share" in measured:
        return f"evaluators' share {measured['share']:.3f}"
    rows = measured.get("rows", [])
    done = f"{sum('reason' not in row for row in rows)} of {len(rows)} rows" if rows else ""
    return "  ".join(filter(None, [done, result.get("error", "")]))


def prepare(folder: Path, tiny: bool) -> None:
    """Write the training data that all parts share."""
    from benchmarks.gpu.rows import prepare as write

    size = {"trajectories": 24, "chats": 60, "words": 60} if tiny else {}
    write(folder, **{"trajectories": 200, "chats": 600, **size})


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu/run.py", description=__doc__.splitlines()[0]
    )
    names = [part.name for part in parts(tiny=False)]
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try it on a CPU")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--attention", choices=ATTENTIONS, help="attention of training")
    parser.add_argument("--out", type=Path, help="file of the results")
    parser.add_argument("--folder", type=Path, help="folder for data and logs (default: temporary)")
    settings = parser.parse_args()
    begun = time.monotonic()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    # In another process, as one that uses the device holds some of its memory.
    described = _output([sys.executable, "-m", "benchmarks.gpu.hardware"])
    if not described:
        parser.error(f"{sys.executable} cannot import torch, expected an installed torch")
    machine = json.loads(described)
    if machine["device"] == "CPU" and not settings.tiny:
        parser.error("found no GPU, expected one; --tiny tries the scripts on a CPU")
    slug = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower()).strip("-")
    name = f"gpu-{slug}-tiny.json" if settings.tiny else f"gpu-{slug}.json"
    out = settings.out or RESULTS / name
    with tempfile.TemporaryDirectory() as temporary:
        folder = settings.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder, settings.tiny)
        found = parts(settings.tiny, settings.attention)
        chosen = [part for part in found if part.name in settings.only]
        used = time.monotonic() - begun
        results = run_all(chosen, settings.minutes * 60 - used, folder)
    written = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _output(["git", "describe", "--always", "--dirty"]) or "unknown",
        "tiny": settings.tiny,
        "minutes": settings.minutes,
        "seconds": round(time.monotonic() - begun, 1),
        **machine,
        "parts": results,
        "memory_rows": memory_rows({name: r.get("measured") or {} for name, r in results.items()}),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    print(f"written: {out}")


if __name__ == "__main__":
    main()
