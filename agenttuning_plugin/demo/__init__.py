"""Demo: a small real training run, end to end."""
