"""AgentBench's web shopping task (WebShop)."""
