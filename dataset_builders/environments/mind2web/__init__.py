"""Mind2Web: choose an element of a real page and an operation on it, step by step."""
