"""Text actions on a page.

Two grammars are supported: ours, which refers to elements by the numbers in the observation, and
that of AgentTuning (RCI's), which refers to them by XPath or id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_TYPED = 500

KEYS = ("enter", "space", "tab", "backspace", "arrowleft", "arrowright", "arrowup", "arrowdown")
"""Those of AgentTuning's code, and the tab key."""

_NUMBER = r"\[?(\d{1,6})\]?"
_CLICK = re.compile(rf"(click|hover)\s+{_NUMBER}", re.IGNORECASE)
_PATH = re.compile(r"(clickxpath|clickoption|movemouse|clickid)\s(.+)", re.IGNORECASE | re.DOTALL)
_TYPE = re.compile(r"type\s(.+)", re.IGNORECASE | re.DOTALL)
_PRESS = re.compile(rf"press\s+({'|'.join(KEYS)})", re.IGNORECASE)
_PRIVATE_USE = re.compile("[\ue000-\uf8ff\ud800-\udfff]|[^\u0000-\uffff]")


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed action.

    Attributes:
        kind: "click", "hover", "clickxpath", "clickoption", "movemouse", "clickid", "type"
            or "press".
        argument: Element's number, path or id; text; or name of a key.
    """

    kind: str
    argument: str


def read_command(line: str) -> Command | None:
    """Parse an action; None if it is not one.

    AgentTuning's rules for surrounding text: quotes within a typed text are removed, an escaped
    line break is one, and text after a backtick is ignored.
    """
    line = line.strip().strip("`").split("`")[0].replace("\n", "").replace("\\n", "\n")
    line = line.strip(" '\t\r")
    if found := _CLICK.fullmatch(line):
        return Command(found.group(1).lower(), str(int(found.group(2))))
    if found := _PRESS.fullmatch(line):
        return Command("press", found.group(1).lower())
    if found := _TYPE.fullmatch(line):
        return Command("type", typed(found.group(1)))
    if found := _PATH.fullmatch(line):
        return Command(found.group(1).lower(), found.group(2).strip())
    return None


def typed(text: str) -> str:
    """Return the part of a text that can be typed.

    Removed are quotes, characters that the driver interprets as keys such as Control, those that it
    cannot type, and text beyond `MAX_TYPED`.
    """
    return _PRIVATE_USE.sub("", text.replace('"', ""))[:MAX_TYPED]
