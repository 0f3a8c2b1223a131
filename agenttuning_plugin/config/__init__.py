"""Schema and rules of the recipe's `agenttuning:` section."""
