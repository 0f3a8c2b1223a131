"""Sandboxes for untrusted commands.

`open_sandbox` (in `engines`) makes one. docs/concepts/sandbox.md lists what a box holds back and
what it does not. The names follow inspect_ai's sandbox environments.
"""
