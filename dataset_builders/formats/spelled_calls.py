"""Read tool calls that a model spelled in the text of its turn.

Model families spell a call in different ways. Each way is declared as data, a `tool_calls` field of
transformers' response templates (`call_spellings.yaml`), and transformers' own response parser
reads the text of each call. This module only cuts the calls out of the turn: the parser rejects a
whole turn for one call that is not JSON, and of the text around calls it keeps only the last piece.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from dataset_builders.errors import ConfigError, DataError
from dataset_builders.extras import needs_extra
from dataset_builders.reasoning import thought_spans
from dataset_builders.tools import ToolCall, parse_tool_calls

_FIELD = "tool_calls"
_VLLM = "vllm"

OWN = "tokenizer"
"""Name of the spelling that a tokenizer's own response template declares."""
_PARSER_VERSION = "5.15"
"""First release of transformers whose response parser takes the schemas of the tools."""

# Text that only calls contain; in a turn with neither, no call is searched.
_SIGNS = re.compile(
    r'<\|?tool_call|\[TOOL_CALLS\]|<atem:|to=functions\.|"(?:parameters|arguments)"'
)

# A mark of some family that is left when the calls have been cut out.
_LEFT = re.compile(
    r"^[ \t]*(?:<tool_calls?>|<atem:function_calls>)|\[TOOL_CALLS\]|<\|tool_call(?:_start\|)?>",
    re.M,
)


@dataclass(frozen=True, slots=True)
class SpelledTurn:
    """A turn whose calls were cut out of its text.

    Attributes:
        text: The turn without its calls; any reasoning is still in it.
        calls: Calls that could be read, in order.
        malformed: Calls that could not be read, as spelled.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    malformed: tuple[str, ...] = ()


class CallSpelling:
    """One way to spell tool calls in a turn.

    Attributes:
        several: Whether a turn may hold several calls.

    Args:
        name: Name, for logs.
        field: The `tool_calls` field of a response template.
        end: End token that the field expects behind a call, though a generated turn lacks it.

    Raises:
        ConfigError: The installed transformers has no response parser.
        ValueError: The installed transformers does not know the field's keys or content parser.
    """

    def __init__(self, name: str, field: Mapping[str, Any], end: str = "") -> None:
        load, self._parse = _response_parser()
        self.name, self._end = name, end
        self.several = True
        repeated = {**field, "repeats": True}
        spec = load({"start_anchor": "\0", "fields": {_FIELD: repeated}})
        self._spec, self._field = spec, spec.fields[_FIELD]

    def read(self, text: str, tools: str = "") -> SpelledTurn:
        """Cut the calls out of a turn.

        Args:
            text: The turn as generated, with the tokens that mark calls.
            tools: JSON text of the tools' schemas, which say the types of arguments that are
                spelled as raw text; "" leaves them text.

        Returns:
            The turn; calls within its reasoning are drafts and stay there. A mark that begins a
            call in another spelling makes the rest of the turn malformed.
        """
        text += self._end
        schemas = json.loads(tools) if tools else None
        kept, calls, malformed, position = [], [], [], 0
        for start, end, closed in self._spans(text):
            kept.append(text[position:start])
            position = end
            # Of one that is not closed, arguments may be missing.
            found = self._calls(text[start:end], schemas) if closed else []
            calls += found
            if not found:
                malformed.append(text[start:end].strip())
        rest = "".join((*kept, text[position:])).removesuffix(self._end)
        thoughts = thought_spans(rest)
        if left := _LEFT.search(rest, thoughts[-1][1] if thoughts else 0):
            malformed.append(rest[left.start() :].strip())
            rest = rest[: left.start()]
        return SpelledTurn(rest, tuple(calls), tuple(malformed))

    def start(self, text: str) -> int | None:
        """Return the index at which the first call of a turn begins; None without one."""
        return next((start for start, _, _ in self._spans(text + self._end)), None)

    def _spans(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """Yield start and end of each call, and whether it is closed."""
        position = 0
        for thought in (*thought_spans(text), (len(text), len(text))):
            while position <= thought[0]:
                opened = self._field.open_re.search(text, position, thought[0])
                if opened is None:
                    break
                closed = self._field.close_re.search(text, opened.end())
                end = closed.end() if closed else len(text)
                yield opened.start(), end, closed is not None
                position = max(end, opened.start() + 1)
            position = max(position, thought[1])

    def _calls(self, region: str, schemas: list[Any] | None) -> list[ToolCall]:
        """Return the calls of one region; none if it cannot be read."""
        try:
            message = self._parse(region, self._spec, prefix="", tools=schemas)
            found = message.get(_FIELD, [])
            each = [call for item in found for call in (item if isinstance(item, list) else [item])]
            calls = parse_tool_calls(each)
            for call in calls:  # A lone surrogate, as an escape, cannot be stored.
                f"{call.name}{call.arguments}".encode()
            return list(calls)
        # The parser raises KeyError and TypeError where JSON is of another shape than expected.
        except (DataError, LookupError, TypeError, ValueError, RecursionError):
            return []


@cache
def declared_spellings() -> tuple[CallSpelling, ...]:
    """Return the declared spellings that the installed transformers can read.

    Raises:
        ConfigError: The installed transformers has no response parser.
    """
    _response_parser()  # Its error is about all of them.
    found = []
    for name, field in _declared().items():
        try:
            found.append(CallSpelling(name, {k: v for k, v in field.items() if k != _VLLM}))
        except ValueError:  # A content parser of a later release.
            continue
    return tuple(found)


def vllm_parser(spelling: str) -> str | None:
    """Return vLLM's `--tool-call-parser` for a spelling, by its name.

    Returns:
        "hf" for a tokenizer's own response template, which vLLM reads itself; None if the spelling
        is not declared here.
    """
    if spelling == OWN:
        return "hf"
    return str(_declared()[spelling][_VLLM]) if spelling in _declared() else None


@cache
def _declared() -> dict[str, dict[str, Any]]:
    import yaml

    source = files("dataset_builders.formats") / "call_spellings.yaml"
    found: dict[str, dict[str, Any]] = yaml.safe_load(source.read_text("utf-8"))
    return found


def hermes_spelling() -> CallSpelling:
    """Return the spelling that `calls_as_text` writes."""
    return declared_spellings()[0]


def read_spelled_calls(text: str, tools: str = "") -> SpelledTurn:
    """Read the calls in a turn of an unknown model, such as one behind a server.

    Args:
        text: The turn.
        tools: JSON text of the schemas of the tools that were offered.

    Returns:
        The turn, read by the declared spelling that reads all of its calls, else by that which
        reads most; unchanged if it contains none.

    Raises:
        ConfigError: The text may contain a call, and the installed transformers has no response
            parser.
        MissingExtraError: The same, and transformers is not installed.
    """
    if _SIGNS.search(text) is None:
        return SpelledTurn(text)
    turns = [spelling.read(text, tools) for spelling in declared_spellings()]
    found = [turn for turn in turns if turn.calls or turn.malformed]
    if not found:
        return SpelledTurn(text)
    return max(found, key=lambda turn: (not turn.malformed, len(turn.calls)))


def _response_parser() -> tuple[Callable[..., Any], Callable[..., dict[str, Any]]]:
    """Import transformers' response parser, which loads no torch."""
    import inspect

    with needs_extra("tokenizer"):
        import transformers
    try:
        from transformers.utils.chat_parsing.response_parser import parse_response
        from transformers.utils.chat_parsing.response_templates import load_response_template
    except ImportError:
        found = False
    else:
        found = "tools" in inspect.signature(parse_response).parameters
    if not found:
        raise ConfigError(
            f"tool calls: found transformers {transformers.__version__}, expected "
            f"{_PARSER_VERSION} or newer, which reads calls from a turn's text"
        )
    return load_response_template, parse_response
