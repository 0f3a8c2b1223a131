"""One module for each shape of record: what it holds and how it becomes a conversation."""
