"""Resolve sources: from a path, hub id or dataset to files, format and conversations."""
