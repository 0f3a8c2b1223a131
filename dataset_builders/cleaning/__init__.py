"""Steps that clean shared chats: page remains, language, duplicates, who answered."""
