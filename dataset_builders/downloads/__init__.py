"""Fetch the public data of environments: sources, checked downloads, archives, records."""
