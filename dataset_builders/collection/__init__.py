"""Collect trajectories: play, filter and write them."""
