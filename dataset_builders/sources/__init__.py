"""A source's name to its files, its format and its conversations."""
