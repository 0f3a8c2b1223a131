"""Run the GPU benchmarks and write benchmarks/results/gpu-DEVICE.json; `--help` lists the options.

python benchmarks/gpu/run.py [--tiny] [--minutes 8] [--only PART ...]
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    runpy.run_module("benchmarks.gpu.session", run_name="__main__")
