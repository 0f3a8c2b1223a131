"""Intervals, aggregates and paired tests."""
