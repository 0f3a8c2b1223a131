"""Page trees: prune a page to the surroundings of candidates and write it as short text.

Pruning and format follow Mind2Web's rule for its language models, as AgentBench does: a model sees
a few candidates and what is near them, never a whole page. Texts of a page are elements of their
own, named `text`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

from dataset_builders.errors import DataError

ID = "backend_node_id"
TEXT = "text"

_LEVELS = 6
"""Levels below a candidate that are kept."""
_DESCENDANTS = 50
"""Maximum elements below a candidate that are kept."""
_SIBLINGS = 3
"""Elements that are kept before and after a candidate."""

_WORDS = 20
"""Maximum words of a text, and of all attributes of an element."""
_VALUE_WORDS = 5
_LONG_WORD = 15
_CHOICE_WORDS = 10

_SHOWN = (
    *("role", "aria_role", "type", "alt", "aria_description", "aria_label", "label", "title"),
    *("name", "text_value", "value", "placeholder", "input_checked", "input_value"),
    *("option_selected", "class"),
)
_MEANINGLESS = frozenset({"hidden", "none", "presentation", "null", "undefined"})
_BARE_TEXT = re.compile(r"<text>(.*?)</text>")
# The order matters, as some are substrings of others.
_ENTITIES = (
    *(("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", " ")),
    *(("&ndash;", "-"), ("&rsquo;", "'"), ("&lsquo;", "'"), ("&ldquo;", '"'), ("&rdquo;", '"')),
    *(("&#39;", "'"), ("&#40;", "("), ("&#41;", ")")),
)


@dataclass(slots=True, eq=False)
class Node:
    """An element of a page.

    Attributes:
        tag: Its name; `TEXT` for a text.
        attributes: Values by name.
        text: Characters before its first child.
        tail: Characters between its end and what follows.
    """

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    text: str = ""
    tail: str = ""

    @property
    def id(self) -> str:
        """Its id within the page, or ""."""
        return self.attributes.get(ID, "")

    def walk(self) -> Iterator[tuple[Node, Node | None]]:
        """Yield all elements in document order, this one first, each with its parent."""
        # Iteratively: real pages nest deeper than Python's recursion limit.
        waiting: list[tuple[Node, Node | None]] = [(self, None)]
        while waiting:
            node, parent = waiting.pop()
            yield node, parent
            waiting += [(child, node) for child in reversed(node.children)]


def parse_page(source: str) -> Node:
    """Parse a page, an XML text as in `cleaned_html`.

    Raises:
        DataError: The text is not well formed.
    """
    reader = _Reader()
    parser = expat.ParserCreate()  # Without namespaces: pages have undeclared prefixes.
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(source, True)
    except expat.ExpatError as error:
        raise DataError(f"not a well-formed page: {error}") from error
    except UnicodeEncodeError as error:
        raise DataError("not a well-formed page: it holds a lone surrogate") from error
    return reader.root


class _Reader:
    def __init__(self) -> None:
        self.root = Node("")
        self._open: list[Node] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        node = Node(tag, attributes)
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node
        self._open.append(node)

    def end(self, tag: str) -> None:
        del tag
        self._open.pop()

    def characters(self, text: str) -> None:
        node = self._open[-1]
        if node.children:
            node.children[-1].tail += text
        else:
            node.text += text

    def doctype(self, *declaration: object) -> None:
        # A document type may define entities; no page of the data set has one.
        raise DataError("not a page of the data set: it declares a document type")


def prune(page: Node, candidates: Collection[str]) -> Node:
    """Prune a page to candidates and their surroundings.

    Kept are each candidate, its ancestors, its first descendants and nearest siblings.
    Of the rest, elements without attributes and with at most one child are replaced by that child.
    Only candidates keep their ids.

    Args:
        page: The page; not modified.
        candidates: Identifiers of elements.

    Raises:
        DataError: A candidate is not on the page.
    """
    keep = _neighbourhood(page, candidates)
    # In reverse document order: children are processed before their parents.
    original = list(page.walk())
    copies: dict[int, Node | None] = {}
    for node, parent in reversed(original):
        owner = parent if node.tag == TEXT else node
        identity = owner.id if owner is not None else ""
        children = _settled(node, copies)
        if identity not in keep and parent is not None:
            copies[id(node)] = None
            continue
        attributes = dict(node.attributes)
        if identity not in candidates or node.tag == TEXT:
            attributes.pop(ID, None)
        copies[id(node)] = Node(node.tag, attributes, children, node.text, node.tail)
    root = copies[id(page)]
    return page if root is None else root


def _settled(node: Node, copies: dict[int, Node | None]) -> list[Node]:
    """Return copies of the children that are kept, with wrappers replaced by their content."""
    children: list[Node] = []
    for child in node.children:
        copy = copies[id(child)]
        if copy is None:
            continue
        children += copy.children if _is_wrapper(copy) else [copy]
    return children


def _is_wrapper(node: Node) -> bool:
    bare = node.tag != TEXT and not node.attributes and len(node.children) <= 1
    return bare and not any(child.tag == TEXT for child in node.children)


def _neighbourhood(page: Node, candidates: Collection[str]) -> set[str]:
    wanted, parents = set(candidates), {}
    found: dict[str, Node] = {}
    for node, parent in page.walk():
        parents[id(node)] = parent
        if node.id in wanted:
            found.setdefault(node.id, node)
    if missing := sorted(wanted - set(found)):
        raise DataError(f"{ID}: candidate {missing[0]!r} is not on the page")
    keep: set[str] = set()
    for node in found.values():
        keep.add(node.id)
        keep.update(each.id for each in _below(node))
        parent = parents[id(node)]
        if parent is not None:
            siblings = [child for child in parent.children if child.tag != TEXT]
            place = next((i for i, each in enumerate(siblings) if each is node), 0)
            near = siblings[max(0, place - _SIBLINGS) : place + _SIBLINGS + 1]
            keep.update(each.id for each in near)
        while parent is not None:
            keep.add(parent.id)
            parent = parents[id(parent)]
    return keep


def _below(node: Node) -> list[Node]:
    found: list[Node] = []
    waiting = [(child, 1) for child in reversed(node.children)]
    while waiting and len(found) < _DESCENDANTS:
        child, level = waiting.pop()
        found.append(child)
        if level < _LEVELS:
            waiting += [(each, level + 1) for each in reversed(child.children)]
    return found


def represent(page: Node) -> tuple[str, list[tuple[str, str]]]:
    """Format a pruned page as short text.

    Returns:
        The text, in which candidates are numbered from 0 in document order, and the
        candidates in that order: identifier and the first ten words of its text.
    """
    marked = [node for node, _ in page.walk() if ID in node.attributes and node.tag != TEXT]
    numbers: dict[str, int] = {}
    for node in marked:
        numbers.setdefault(node.id, len(numbers))
    choices = [
        (node.id, " ".join(_short(node, numbers).split()[:_CHOICE_WORDS])) for node in marked
    ]
    return _short(page, numbers), choices


def _short(top: Node, numbers: dict[str, int]) -> str:
    # Mind2Web writes XML and then removes its markup; the same is done here, since a text may look
    # like such markup.
    text = "".join(_xml(top, numbers)).replace('"', " ")
    text = text.replace("meta= ", "").replace("id= ", "id=").replace(" >", ">")
    text = _BARE_TEXT.sub(r"\1", text)
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return " ".join(text.split())


def _xml(top: Node, numbers: dict[str, int]) -> Iterator[str]:
    waiting: list[Node | str] = [top]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            yield node
            continue
        is_text = node.tag == TEXT
        content = " ".join(node.text.split()[:_WORDS]) if is_text else node.text
        shown = node.attributes if is_text else _marks(node, numbers)
        pairs = "".join(f' {name}="{_quoted(value)}"' for name, value in shown.items())
        if not (is_text or content or node.children):
            yield f"<{node.tag}{pairs}/>{escape(node.tail)}"
            continue
        yield f"<{node.tag}{pairs}>{escape(content)}"
        waiting.append(f"</{node.tag}>{escape(node.tail)}")
        waiting += reversed(node.children)


def _quoted(value: str) -> str:
    return escape(value, {'"': "&quot;"})


def _marks(node: Node, numbers: dict[str, int]) -> dict[str, str]:
    """Return a candidate's number, and the words of its informative attributes."""
    values: dict[str, None] = {}
    for name in _SHOWN:
        value = node.attributes.get(name, "").lower()
        if value in _MEANINGLESS or value.startswith("http"):
            continue
        words = [word for word in value.split() if len(word) < _LONG_WORD][:_VALUE_WORDS]
        if words:
            values.setdefault(" ".join(words))
    marks = {"id": str(numbers[node.id])} if node.id in numbers and ID in node.attributes else {}
    if values:
        marks["meta"] = " ".join(" ".join(values).split()[:_WORDS])
    return marks
