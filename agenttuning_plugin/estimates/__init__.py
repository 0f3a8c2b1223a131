"""Estimate a run's memory and time from its model's configuration."""
