"""Remove a terminal's control sequences from text."""

from __future__ import annotations

import re

_CONTROL = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # Titles and links.
    r"|\x1b[PX^_].*?(?:\x1b\\|\Z)"  # Strings for the terminal.
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"  # Colors and movements.
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]",
    re.DOTALL,
)
_TITLED_PROMPT = re.compile(r"\x1b\]0;[^\x07\x1b]*\x07[^\s@]+@[^\s#$]+[#$] ?")
"""A shell's prompt, recognised by the window title that is set before it."""


def plain_text(text: str) -> str:
    """Remove terminal control sequences; line breaks and tabs stay."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def has_sequences(text: str) -> bool:
    """Whether a text has an escape character, with which a terminal's sequences begin."""
    return "\x1b" in text


def plain_output(text: str) -> str:
    """Remove control sequences and titled shell prompts, as of a recorded terminal."""
    return plain_text(_TITLED_PROMPT.sub("", text)).rstrip(" ")
