"""Transcript page: one HTML file that works offline.

Data are untrusted: they are embedded as JSON that cannot close its element, and the script shows
them as text, never as markup.
"""

from __future__ import annotations

import json
import math
from importlib import resources
from typing import Any

from markupsafe import escape

from agenttuning_plugin.reports.transcripts.read import Shown

_TITLE, _DATA = "@TITLE@", "@DATA@"


def render(shown: Shown, title: str) -> str:
    """Render the page.

    Args:
        shown: The episodes.
        title: Title, such as the folder's name.
    """
    page = resources.files(__package__).joinpath("view.html").read_text("utf-8")
    head, _, tail = page.partition(_DATA)
    return head.replace(_TITLE, str(escape(title))) + _embedded(shown) + tail


def _embedded(shown: Shown) -> str:
    data: dict[str, Any] = {"episodes": shown.episodes, "left_out": shown.left_out}
    text = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Within a script element only "<" can start its end tag. Lone surrogates, which a
    # broken tokenizer can emit, cannot be written as UTF-8.
    safe = text.replace("<", "\\u003c").encode("utf-16", "surrogatepass")
    return safe.decode("utf-16", "replace")


def _finite(value: Any) -> Any:
    """Replace figures that JSON lacks by words: a browser would reject the whole page."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value
