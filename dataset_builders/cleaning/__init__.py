"""Cleaning of shared chats: page remnants, language, duplicates, author model."""
