"""ALFWorld: household tasks as text games, with the grammar that AgentBench used."""
