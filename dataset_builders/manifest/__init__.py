"""Manifest: the record from which a mix's stream can be rebuilt and inspected."""
