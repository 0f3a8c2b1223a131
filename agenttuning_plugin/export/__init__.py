"""Trained models as folders: merge adapters, upload."""
