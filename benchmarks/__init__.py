"""Benchmarks; each module is a script."""
