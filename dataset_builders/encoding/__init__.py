"""Encode rendered conversations as token rows and write them as a dataset."""
