"""Sandboxes for untrusted commands.

`open_sandbox` (in `engines`) creates one. docs/sandbox.md lists what a sandbox isolates and what it
does not. The names follow inspect_ai's sandbox environments.
"""
