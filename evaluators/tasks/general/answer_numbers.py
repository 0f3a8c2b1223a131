"""Extract the final number of an answer, in any common notation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

_MINUS = r"[-\u2212\u2013\ufe63\uff0d]"
"""Hyphen, minus sign and en dash, and two hyphens of other widths."""
_BLANK = r"[ \u00a0\u2009\u202f'\u2019]"
"""Between thousands: a blank, also a narrow or fixed one, or an apostrophe."""

# From the most to the least particular: 1.234,5; 20 800; 20,800; 3,5; 12.05; .5
_PLAIN = rf"""
    (?P<dots>  [1-9]\d{{0,2}} (?: (?:\.\d{{3}})+,\d+ | (?:\.\d{{3}}){{2,}} ) (?![\d,]) )
  | (?P<blanks> (?<!\d[ ]) [1-9]\d{{0,2}} (?:{_BLANK}\d{{3}})+ (?:[.,]\d+)? (?!\d) )
  | (?P<commas> [1-9]\d{{0,2}} (?:,\d{{3}})+ (?!\d) (?:\.\d+)? )
  | (?P<comma> (?<!\d,) \d+,\d+ (?! [\d,]*\d | \.\d ) )
  | (?P<point> \d+ (?:\.\d+)? | \.\d+ )
"""
_NUMBER = re.compile(
    # A minus belongs to the number unless it follows something that it may be subtracted from.
    rf"""
    (?P<sign> (?<![\w.,)\]]) {_MINUS} )? (?: \\?\$ (?P<minus> {_MINUS} )? )?
    (?:
        \\[dt]?frac \{{ (?P<top> \d+ ) \}} \{{ (?P<bottom> 0*[1-9]\d* ) \}}
      | (?: (?P<whole> \d+ ) [ ] )? (?P<over> (?<![\d/.,]) \d+ ) [ ]?/[ ]? (?P<under> 0*[1-9]\d* )
        (?! [\d/.,]*[\d/] )
      | (?: {_PLAIN} )
        (?: [eE] (?P<exponent> [-+]?\d{{1,3}} ) (?!\w)
          | \s? (?: [x\u00d7*\u00b7] | \\times | \\cdot ) \s? 10 \s? (?: \^ | \*\* )
            \{{? (?P<power> [-+]?\d{{1,3}} ) \}}? )?
    )
    """,
    re.ASCII | re.VERBOSE,
)
_MARKED = re.compile(r"####[ \t]*(?P<rest>[^\n]*)")
_BOXED = re.compile(r"\\boxed\s*\{(?P<rest>(?:[^{}]|\{[^{}]*\})*)\}")


def last_number(text: str) -> Decimal | None:
    r"""Return an answer's number: after `####`, in `\boxed{}`, else the last one.

    Supported are signs (an en dash too), decimals with a point or a comma, thousands separated by
    commas, blanks, points or apostrophes, fractions, mixed numbers and powers of ten; units are
    ignored. Three digits after a single comma are thousands: "3,500" is 3500.
    """
    marked = list(_MARKED.finditer(text))
    if marked and (first := next(_numbers(marked[-1]["rest"]), None)) is not None:
        return first
    boxed = list(_BOXED.finditer(text))
    found = list(_numbers(boxed[-1]["rest"])) if boxed else []
    found = found or list(_numbers(text))
    return found[-1] if found else None


def _numbers(text: str) -> Iterator[Decimal]:
    for match in _NUMBER.finditer(text):
        value = _value(match)
        yield value.copy_negate() if match["sign"] or match["minus"] else value


def _value(match: re.Match[str]) -> Decimal:
    if match["top"]:
        return Decimal(match["top"]) / Decimal(match["bottom"])
    if match["over"]:
        return Decimal(match["whole"] or 0) + Decimal(match["over"]) / Decimal(match["under"])
    if match["dots"]:
        digits = match["dots"].replace(".", "").replace(",", ".")
    elif match["blanks"]:
        digits = re.sub(_BLANK, "", match["blanks"]).replace(",", ".")
    elif match["commas"]:
        digits = match["commas"].replace(",", "")
    else:
        digits = (match["comma"] or match["point"]).replace(",", ".")
    value = Decimal(digits)
    power = int(match["exponent"] or match["power"] or 0)
    return value.scaleb(power) if power else value
