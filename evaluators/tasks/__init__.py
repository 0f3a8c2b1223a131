"""Evaluation tasks: agent tasks, replay, loss and benchmarks."""
