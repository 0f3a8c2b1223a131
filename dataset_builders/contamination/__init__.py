"""Contamination: overlap of an evaluation set with training data."""
