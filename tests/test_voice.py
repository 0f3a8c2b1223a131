"""Docstrings, help texts and field descriptions are plain technical English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agenttuning_plugin", "dataset_builders", "evaluators")

# Each phrase once stood in the source; the comment names the standard term.
ODD = {
    r"told": "passed, given, called with",
    r"dear": "expensive",
    r"borne|is had|be had": "tolerated; available",
    r"lent|on loan|a loan": "held, frozen",
    r"goes on|go on|going on": "continue, resume",
    r"taken up again|take up again|takes up": "resume",
    r"put aside|puts aside|set aside": "archive, park",
    r"earlier life": "previous run",
    r"sign of life|signs of life": "heartbeat",
    r"given up|gives up": "abandoned, timed out",
    r"stands? in for": "replaces, placeholder",
    r"stands? still": "stalls",
    r"told apart|tells? apart|told from": "distinguish",
    r"what became of|what becomes of": "counts, report",
    r"leads? nowhere": "does not exist",
    r"of its own kind|of their own kind": "another type",
    r"in vain": "failed",
    r"whoever|whosoever": "the reader, the caller",
    r"likewise of": "the same for",
    r"at hand": "available",
    r"spelt": "written, spelled",
    r"hushed|swallowed up": "suppressed",
    r"mend|mends|mended": "fix",
    r"(?:has|have) a say": "decides",
    r"where it is asked": "base URL",
    r"words around": "prompt template",
    r"way of finding|ways of finding|other way finds": "method",
    r"by hand": "explicitly",
}
ODD_WORDS = re.compile(rf"(?<![\w`/-])(?:{'|'.join(ODD)})(?![\w`/-])", re.IGNORECASE)
TEXT_ARGUMENTS = {"help", "description", "short_help", "epilog"}


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """First lines of docstrings, help texts and field descriptions, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield node.body[0].lineno, text.partition("\n")[0]
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in TEXT_ARGUMENTS and isinstance(keyword.value, ast.Constant):
                    yield keyword.value.lineno, str(keyword.value.value)


def odd_texts(source: str) -> list[str]:
    found = ((line, text, ODD_WORDS.search(text)) for line, text in texts_of(source))
    return [f"{line}: {match[0]!r} in {text!r}" for line, text, match in found if match]


@pytest.mark.parametrize("package", PACKAGES)
def test_texts_have_no_odd_words(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {
        str(file.relative_to(ROOT)): odd
        for file in files
        if (odd := odd_texts(file.read_text("utf-8")))
    }
    assert not found


def test_the_search_finds_odd_words_and_only_whole_ones() -> None:
    odd = '''
"""What a run's earlier life left."""
def f() -> None:
    """Likewise of dear ones."""
x = Option(help="Folder to go on with.")
y = Field(description="Words around the environment.")
'''
    assert [line.partition(":")[0] for line in odd_texts(odd)] == ["2", "4", "5", "6"]
    plain = '''
"""Excellent, silently; amendments, `told` and the silent talent endearing."""
def f() -> None:
    """Append.

    The body may say told.
    """
x = f(name="told")
'''
    assert odd_texts(plain) == []
