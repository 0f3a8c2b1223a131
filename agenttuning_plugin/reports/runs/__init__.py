"""Comparison of any number of runs: table, page and plot."""
