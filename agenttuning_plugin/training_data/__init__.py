"""Training data of a run: encode, cache, mix, pack and record the recipe's sources."""
