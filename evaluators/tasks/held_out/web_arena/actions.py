"""WebArena's actions, and their equivalents in BrowserGym."""

from __future__ import annotations

import re
from collections.abc import Callable

STOP = "stop"
NO_ACTION = "none"

_VERB = re.compile(r"^(\w+)\s*(.*)$", re.DOTALL)
_PART = re.compile(r"\[(.*?)\](?=\s*\[|\s*$)", re.DOTALL)
_SCROLL = 640
"""Pixels of a step: a little less than the height of the window."""


def read(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Parse verb and arguments of an action such as `type [12] [hello] [1]`.

    Returns:
        None if it is not an action of WebArena's, or its arguments are invalid.
    """
    found = _VERB.match(text.strip())
    if found is None or found[1] not in _CALLS:
        return None
    verb, rest = found[1], found[2].strip()
    if verb == STOP and not rest:
        return STOP, ("",)
    parts = tuple(_PART.findall(rest))
    least, most, _ = _CALLS[verb]
    if verb in ("scroll", "goto") and not parts and rest:
        parts = (rest,)
    if not least <= len(parts) <= most or (not parts and rest):
        return None
    if verb == "type" and len(parts) == 3 and parts[2].rpartition("=")[2] not in ("0", "1"):
        return None
    if verb == "scroll" and parts[0].rpartition("=")[2] not in ("up", "down"):
        return None
    if verb == "tab_focus" and not parts[0].rpartition("=")[2].strip().isdigit():
        return None
    return verb, parts


def to_browsergym(verb: str, parts: tuple[str, ...]) -> str:
    """Return the equivalent calls of BrowserGym's high-level actions."""
    return _CALLS[verb][2](*parts)


def _type(place: str, text: str, enter: str = "1") -> str:
    filled = f"fill({place!r}, {text!r})"
    return filled if enter.endswith("0") else f"{filled}\npress({place!r}, 'Enter')"


def _scroll(direction: str) -> str:
    return f"scroll(0, {-_SCROLL if direction.endswith('up') else _SCROLL})"


def _focus(index: str) -> str:
    return f"tab_focus({int(index.rpartition('=')[2])})"


_CALLS: dict[str, tuple[int, int, Callable[..., str]]] = {
    "click": (1, 1, lambda place: f"click({place!r})"),
    "type": (2, 3, _type),
    "hover": (1, 1, lambda place: f"hover({place!r})"),
    "press": (1, 1, lambda keys: f"keyboard_press({keys!r})"),
    "scroll": (1, 1, _scroll),
    "new_tab": (0, 0, lambda: "new_tab()"),
    "tab_focus": (1, 1, _focus),
    "close_tab": (0, 0, lambda: "tab_close()"),
    "goto": (1, 1, lambda url: f"goto({url!r})"),
    "go_back": (0, 0, lambda: "go_back()"),
    "go_forward": (0, 0, lambda: "go_forward()"),
    STOP: (1, 1, lambda answer: f"send_msg_to_user({answer!r})"),
    NO_ACTION: (0, 0, lambda: "noop(0)"),
}
"""Fewest and most arguments, and the call, by verb."""
