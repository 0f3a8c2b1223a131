"""Evaluation during training: schedule, callback, and rules on the results."""
