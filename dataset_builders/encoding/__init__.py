"""Rendered text to token rows, and these to a data set on disk."""
