"""AgentBench's database task (DB)."""
