"""Models under evaluation: local, sharded or behind a server."""
