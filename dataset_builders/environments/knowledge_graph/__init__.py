"""AgentBench's knowledge graph task (KG): questions answered with seven tools."""
