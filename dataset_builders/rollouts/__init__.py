"""Play episodes of environments with a policy."""
