"""Refusal: whether a model declines harmful requests and still answers harmless look-alikes."""
