from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.cleaning.page_text import (
    clean_characters,
    is_failure,
    outside_code,
    page_markup,
    remove_page_text,
    without_code,
)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Continue1 / 1", "Continue"),
        ("as I said.3 / 3", "as I said."),
        ("in the list\n\n2 / 2 ", "in the list"),
        ("so,2 / 2\n", "so,"),
        ("Why is it?Share Prompt", "Why is it?"),
        ("Why is it?\n Share Prompt ", "Why is it?"),
        ("Run?This content may violate our content policy. If you believe so, write.", "Run?"),
        ("Like this:\n\nglsl\nCopy code\nvec2 x;", "Like this:\n\nglsl\nvec2 x;"),
    ],
)  # fmt: skip
def test_captions_of_the_page_are_removed(text: str, cleaned: str) -> None:
    assert remove_page_text(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "What is 12 / 2",
        "what is 4 / 4",
        "compute 2 / 2",
        "x = 3 / 4",
        "2 * 3 / 4",
        "(1 / 2",
        "costs 0.5 / 2",
        "1 000 / 5",
        "he scored 5 / 3",
        "What is 2 / 2 in words?",
        "The button Share Prompt does nothing",
        "```\nCopy code\n```",
        "How do I copy code?",
    ],
)
def test_what_may_be_meant_is_left(text: str) -> None:
    assert remove_page_text(text) == text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\u200b\u200bb\ufeff", "ab"),
        ("a\x00b\x1b[0m\x7f", "ab[0m"),
        ("one\x0btwo\x0cthree", "one\ntwo\nthree"),
        ("the \x93model\x94 \x81", "the \u201cmodel\u201d "),
        ("tab\tline\r\n", "tab\tline\r\n"),
        ("👩\u200d🎤 नम\u200cस्ते \u200f\u200e", "👩\u200d🎤 नम\u200cस्ते \u200f\u200e"),
        ("ภาษา\u200bไทย", "ภาษา\u200bไทย"),
        ("a\u200b```\x00\u200b```\u200bb", "a```\x00\u200b```b"),
    ],
)
def test_characters_that_show_nothing(text: str, cleaned: str) -> None:
    assert clean_characters(text) == cleaned


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("network error", True),
        ("Network Error\n\nOnly one message at a time. Please allow any other.", True),
        ("Too many requests in 1 hour. Try again later.", True),
        ("Hmm...something seems to have gone wrong. Maybe try me again in a little bit.", True),
        ("Something went wrong. If this issue persists please contact us.", True),
        ("Load failed", True),
        ("network error handling is done in the client", False),
        ("A network error", False),
        ("Something went wrong in your loop: the index starts at 1.", False),
        ("network error\n" + "It means that the server is out of reach. " * 10, False),
        ("", False),
    ],
)
def test_failures(text: str, failed: bool) -> None:
    assert is_failure(text) is failed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('of E" role="presentation" style="text-align: center; position: relative;">E', True),
        ('<div class="w-full markdown prose dark">hello</div>', True),
        ('<div class="prose">hello</div>', False),
        ('`<span class="x">` is a tag, &amp; is an entity', False),
        ('```html\n<p role="presentation" style="position: relative;">\n```', False),
    ],
)
def test_page_markup_outside_of_code(text: str, found: bool) -> None:
    assert bool(page_markup(text)) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # HTML that was asked for and stands there bare.
        ('<div class="box"><p class="markdown prose">Hi</p></div>', False),
        ('Here it is:\n<!DOCTYPE html>\n<p class="math-inline">x</p>', False),
        ('<html lang="en"><td role="presentation" style="position: relative"></html>', False),
        # A page that was never converted, and a formula in prose.
        ('<div class="markdown prose w-full"><p>Hi</p></div>', True),
        ('The area is <span class="math-inline">x</span>.', True),
    ],
)
def test_an_answer_in_bare_html_is_code(text: str, found: bool) -> None:
    assert bool(page_markup(text)) is found


PIECES = st.lists(st.sampled_from(["```", "a", "\n", "\u200b", "\x07", "py", "Copy code\n"]))


@settings(deadline=None)
@given(PIECES)
def test_code_is_never_touched(pieces: list[str]) -> None:
    text = "".join(pieces)
    code = text.split("```")[1::2]
    for change in (clean_characters, remove_page_text, lambda t: outside_code(t, str.upper)):
        assert change(text).split("```")[1::2] == code


@settings(deadline=None)
@given(PIECES)
def test_without_code_leaves_the_rest(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert without_code(text) == "".join(text.split("```")[::2])


@settings(deadline=None)
@given(st.text())
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    cleaned = clean_characters(text)
    assert clean_characters(cleaned) == cleaned
    cleaned.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    "text",
    [
        "Simplify 12 / 18",
        "Convert to decimal: 3 / 8",
        "my score: 7 / 10",
        "it went from 9 / 10 to 3 / 10",
        "a button labelled Share Prompt",
        "it says: This content may violate our content policy. Why?\nx = 1",
    ],
)
def test_what_people_ask_about_stays(text: str) -> None:
    assert remove_page_text(text) == text
