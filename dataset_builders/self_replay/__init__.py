"""Self-generated replay: a model's own answers to the user turns of a chat source."""
