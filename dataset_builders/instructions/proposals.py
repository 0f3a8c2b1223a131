"""Parse task proposals: headed sections with code in fenced blocks.

JSON would be easier to parse, but shell code within JSON needs escapes that models get wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dataset_builders.errors import DataError

FIRST = "task"
"""Title of the section that begins a proposal."""

_HEADING = re.compile(r"^#{2,4}[ \t]*(\w+)[ \t]*:?[ \t]*(.*?)[ \t]*$")
_FENCE = re.compile(r"^[ \t]*```")
_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """A section.

    Attributes:
        title: First word of its heading, in lower case.
        argument: The rest of the heading.
        body: The text below it.
    """

    title: str
    argument: str
    body: str

    @property
    def code(self) -> str | None:
        """Return the content of the first fenced block; None if there is none."""
        block = _BLOCK.search(self.body + "\n")
        return None if block is None else block[1].rstrip("\n")


Proposal = tuple[Section, ...]


def sections(reply: str) -> list[Section]:
    """Parse a reply into sections.

    Lines within a fenced block are not headings. Text before the first heading is ignored.
    """
    found: list[Section] = []
    lines: list[str] = []
    fenced = False
    for line in (*reply.splitlines(), None):
        fenced ^= line is not None and bool(_FENCE.match(line))
        heading = None if fenced or line is None else _HEADING.match(line)
        if line is not None and heading is None:
            lines.append(line)
            continue
        if found:
            found[-1] = replace(found[-1], body="\n".join(lines).strip("\n"))
        lines = []
        if heading is not None:
            found.append(Section(heading[1].lower(), heading[2], ""))
    return found


def split_proposals(reply: str) -> list[Proposal]:
    """Split a reply into tasks, each of which begins with a heading `### Task`.

    The last task of a truncated reply is incomplete and fails when a missing section is read.
    """
    proposals: list[list[Section]] = []
    for section in sections(reply):
        if section.title == FIRST:
            proposals.append([])
        if proposals:
            proposals[-1].append(section)
    return [tuple(proposal) for proposal in proposals]


def find(proposal: Sequence[Section], title: str) -> Section | None:
    """Return the first section with a title."""
    return next((section for section in proposal if section.title == title), None)


def text_of(proposal: Sequence[Section], title: str) -> str:
    """Return a section's text on one line.

    Raises:
        DataError: There is no such section, or it is empty.
    """
    section = find(proposal, title)
    text = "" if section is None else " ".join((section.argument + " " + section.body).split())
    if not text:
        raise DataError(f"{title}: missing")
    return text


def code_of(proposal: Sequence[Section], title: str) -> str:
    """Return the code of a section.

    Raises:
        DataError: There is no such section, or it has no code.
    """
    section = find(proposal, title)
    code = section.code if section else None
    if code is None or not code.strip():
        raise DataError(f"{title}: expected a fenced block with code")
    return code
