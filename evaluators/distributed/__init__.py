"""Processes of a distributed run: collective calls and heartbeats."""
