"""Conversation and chat template to text, and what of it is trained."""
