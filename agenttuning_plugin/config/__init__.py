"""The recipe's section: its keys, and which of them contradict each other."""
