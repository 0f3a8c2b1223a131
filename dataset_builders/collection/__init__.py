"""Trajectories: played, scored, kept and written."""
