"""Render conversations with chat templates and locate the text that is trained on."""
