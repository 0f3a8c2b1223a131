"""What is measured: agent tasks, replay, loss and benchmarks."""
