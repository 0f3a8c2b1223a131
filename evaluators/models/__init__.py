"""A model that answers: local, sharded or behind a server."""
