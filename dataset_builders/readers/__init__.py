"""Files of any kind to conversations: found, streamed, told apart, every record counted."""
