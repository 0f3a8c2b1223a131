"""A section to the rows of a run: encoded, cached, mixed, packed and recorded."""
