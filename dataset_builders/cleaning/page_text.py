"""Remove text that a chat page or a broken paste left in shared conversations.

What is cleaned, and what is left, follows counts on the 17,671 public ShareGPT
conversations. HTML tags (801 conversations) and entities (20) are almost without
exception the code and the tables that people talk about, so no markup is converted;
only the debris of a rendered formula or a raw page rejects a conversation (2). Links
to sharegpt.com (5) are what people wrote about. Code blocks are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_FENCED = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)

# The counter of a question's versions, "2 / 2". The page shows the last of a few versions, so
# both numbers are equal and small in 333 of 347 cases; other fractions are what people ask
# about. After a digit or an operator it cannot be distinguished from a division, nor after a word
# that asks for one; those stay.
_COUNTER = re.compile(r"(?<![\d*+=(^/-])(?<![\d*+=^/-] )(?<!\d[.,])(?P<at>[1-9]) / (?P=at)\s*\Z")
_ASKS_FOR_SUM = re.compile(
    r"(?i)\b(?:is|of|by|compute|calculate|evaluate|solve|than|rate[ds]?)\s\Z"
)
# Within a sentence the words may be what it is about.
_SHARE_PROMPT = re.compile(r"(?:(?<=[^\s])|(?<=[.?!:;)\]}\"'])\s+|\s*\n\s*|\A)Share Prompt\s*\Z")
_MODERATION = re.compile(
    r"\s*(?:!Contents? may violate our content policy)?\s*This (?:content|prompt) may violate our "
    r"content policy\.(?:\s*If you believe[^\n]*)?\s*\Z"
)
_COPY_CODE = re.compile(r"^Copy code[ \t]*\n", re.MULTILINE)

# Zero-width spaces, word joiners and byte order marks, except where a zero-width space
# separates words: Thai, Lao, Burmese, Khmer. Joiners and marks of direction carry meaning.
_INVISIBLE = re.compile("[\u2060\ufeff]|(?<![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\u200b")
_VERTICAL = re.compile("[\x0b\x0c]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_PAGE_MARKUP = re.compile(
    r'role="presentation" style="[^"]*position: relative'
    r'|class="(?:[^"]* )?(?:katex-mathml|math-inline|result-streaming|markdown prose)'
)

_FIRST_TAG = re.compile(r"\s*<[A-Za-z][^<>]*>")
_DOCUMENT = re.compile(r"(?i)<!doctype html|<html[\s>]")

_FAILURES = re.compile(
    r"(?:network error|load failed|failed to fetch|internal server error|error in body stream"
    r"|(?:the )?request timed out|too many requests in 1 hour\b.*"
    r"|only one message at a time\..*"
    r"|hmm\s?\.\.\.\s?something seems to have gone wrong\..*"
    r"|(?:something went wrong|an error occurred)\."
    r" (?:if this issue persists|either the engine)\b.*"
    r"|there was an error generating a response\b.*"
    r"|the server (?:experienced an error|had an error) while processing your request\b.*"
    r"|our systems are (?:a bit busy|experiencing)\b.*)",
    re.IGNORECASE,
)
_FAILURE_MAX = 300  # characters; a longer turn is an answer, about an error maybe


def clean_characters(text: str) -> str:
    """Remove invisible characters: control characters and zero-width spaces.

    Vertical tabs and form feeds, from printed documents, become line breaks. The range
    U+0080 to U+009F, which Unicode leaves to controls, is what Windows-1252 text becomes
    when it is read as Latin-1, and turns back into its quotes and dashes.
    """
    if _CONTROLS.search(text):
        text = outside_code(text, _without_controls)
    if not text.isascii() and _INVISIBLE.search(text):
        text = outside_code(text, lambda part: _INVISIBLE.sub("", part))
    return text


def remove_page_text(text: str) -> str:
    """Remove captions of the chat page from a user's turn.

    These are the counter of a question's versions ("2 / 2", found at the end of 333
    questions), the button "Share Prompt" (381), the note that content may violate the
    policy (6), and lines "Copy code" above pasted code (21). An answer may speak of such
    a button, so only the user's turns are cleaned.
    """
    if "ode" in text and _COPY_CODE.search(text):
        text = outside_code(text, lambda part: _COPY_CODE.sub("", part))
    if "may violate our" in text:
        text = _MODERATION.sub("", text)
    if "Share Prompt" in text:
        text = _SHARE_PROMPT.sub("", text)
    return _without_counter(text) if " / " in text[-12:] else text


def is_failure(text: str) -> bool:
    """Whether an answer consists only of an error message of the chat service.

    An answer that explains a network error is longer, or says more than the message.
    """
    text = text.strip()
    if len(text) > _FAILURE_MAX:
        return False
    return _FAILURES.fullmatch(text.split("\n", 1)[0].strip().rstrip(".")) is not None


def page_markup(text: str) -> str:
    """Return the chat page's own markup outside of code blocks, "" if there is none.

    It is what remains of a formula that was copied in its rendered form, every symbol
    two or three times over, or the source of a page that was never converted. An answer that
    is HTML as a whole is code, fenced or not, unless its first tag is the page's.
    """
    if 'role="presentation"' not in text and 'class="' not in text:
        return ""
    for part in _FENCED.split(text)[::2]:
        found = _PAGE_MARKUP.search(part)
        if found is not None and not _is_html(part, found.start()):
            return found[0]
    return ""


def _is_html(part: str, markup: int) -> bool:
    """Whether a text is hand-written HTML, with this markup after its first tag."""
    if _DOCUMENT.search(part):
        return True
    tag = _FIRST_TAG.match(part)
    return tag is not None and tag.end() <= markup


def without_code(text: str) -> str:
    """Return the text without its fenced code blocks."""
    return "".join(_FENCED.split(text)[::2]) if "```" in text else text


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply a change to a text, but not inside its fenced code blocks."""
    if "```" not in text:
        return change(text)
    parts = _FENCED.split(text)
    parts[::2] = map(change, parts[::2])
    return "".join(parts)


def _without_controls(part: str) -> str:
    part = _VERTICAL.sub("\n", part)
    return _CONTROLS.sub(
        lambda found: (
            found[0].encode("latin-1").decode("cp1252", "ignore") if found[0] >= "\x80" else ""
        ),
        part,
    )


def _without_counter(text: str) -> str:
    match = _COUNTER.search(text)
    if match is None:
        return text
    before = text[: match.start()]
    return text if _ASKS_FOR_SUM.search(before) else before.rstrip()
