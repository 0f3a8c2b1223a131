"""Checks and conversions of a recipe before training."""
