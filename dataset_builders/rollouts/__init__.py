"""Plays episodes of environments with a policy."""
