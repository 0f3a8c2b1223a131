"""Adapters of trainers."""
