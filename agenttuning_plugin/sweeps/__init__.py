"""Train a recipe with several values and seeds: one run for each combination, an arm."""
