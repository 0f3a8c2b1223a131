"""Record formats, one module each: what a record holds and how it becomes a conversation."""
