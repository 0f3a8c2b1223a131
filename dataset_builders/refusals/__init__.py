"""Refusals: requests to refuse, how a model is asked them, and examples to train on."""
