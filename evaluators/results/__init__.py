"""Evaluation results and transcripts on disk."""
