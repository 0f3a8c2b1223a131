"""Trainer adapters."""
