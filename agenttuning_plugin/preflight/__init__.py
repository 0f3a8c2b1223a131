"""Check and convert a recipe before training."""
