"""The demo: one small real training run, end to end."""
