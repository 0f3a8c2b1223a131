"""Rounds of collecting with the current model, training on what succeeded, and evaluating.

`run_rounds` is the whole method (AgentEvol, arXiv 2406.04151; rejection sampling fine-tuning, arXiv
2308.01825); `agenttuning rounds` runs it with Axolotl's trainer.
"""
