"""GPU benchmarks: `python benchmarks/gpu/run.py`; see README.md in this folder."""
