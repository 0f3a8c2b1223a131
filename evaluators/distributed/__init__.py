"""Distributed runs: collective operations and heartbeats."""
