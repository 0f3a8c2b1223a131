"""Transcripts of evaluations as a page to read."""
