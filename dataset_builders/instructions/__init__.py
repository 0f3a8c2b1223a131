"""Generate new instructions for held-in environments: Task Derivation and Self-Instruct."""
