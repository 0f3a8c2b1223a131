"""Requests to a model over HTTP."""
