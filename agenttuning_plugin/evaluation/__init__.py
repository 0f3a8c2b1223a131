"""Evaluators built from the recipe's section, and evaluation outside of training."""
