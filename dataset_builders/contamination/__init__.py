"""How much of an evaluation set is in training data."""
