"""AgentBench's operating system task (OS): a shell in a sandbox."""
