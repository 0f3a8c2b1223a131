"""What can be done on a page, as a line of text.

Two grammars are read: ours, which names elements by the numbers in the observation, and
that of AgentTuning (RCI's), which names them by XPath or id.
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
    """An action that has been read.

    Attributes:
        kind: "click", "hover", "clickxpath", "clickoption", "movemouse", "clickid", "type"
            or "press".
        argument: Element's number, path or id; text; or name of a key.
    """

    kind: str
    argument: str


def read_command(line: str) -> Command | None:
    """Read an action; None where it is none.

    AgentTuning's rules for what is around it: quotes within a typed text are left out, a
    written-out line break is one, and what follows a backtick is not read.
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
    """What is typed of a text.

    Left out are quotes, characters that the driver takes for keys such as Control, those
    that it cannot type, and what is beyond `MAX_TYPED`.
    """
    return _PRIVATE_USE.sub("", text.replace('"', ""))[:MAX_TYPED]
