"""Pages cut down and written as short text, by rules that the published rows show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.environments.mind2web.dom import (
    ID,
    TEXT,
    Node,
    parse_page,
    prune,
    represent,
)
from dataset_builders.environments.mind2web.made_up import xml_of
from dataset_builders.errors import DataError


def short(source: str, *candidates: str) -> tuple[str, list[str]]:
    page, choices = represent(prune(parse_page(source), candidates))
    assert sorted(each for each, _ in choices) == sorted(candidates)
    return page, [text for _, text in choices]


def link(number: int, words: str = "go", marks: str = "") -> str:
    text = f'<text {ID}="t{number}">{words}</text>'
    return f'<a {ID}="{number}"{marks}> {text} </a>'


def test_a_published_row_comes_out_as_it_stands() -> None:
    """The text of AgentInstruct's mind2web_15, from a page made for it."""
    source = f"""
    <html {ID}="1"><div {ID}="2" role="main"> <div {ID}="3"> <h3 {ID}="4"> <text {ID}="5">Top
    Tracks</text> </h3> <button {ID}="6" aria_label="Play on YouTube"> <text {ID}="7">Play
    all</text> </button> <button {ID}="8" type="hidden"> <text {ID}="9">Last 7 days</text>
    </button> <span {ID}="10"> {link(11, "Last 30 days", ' role="none"')} </span> </div>
    </div></html>
    """
    page, choices = short(source.strip(), "6", "11")
    assert page.replace("> <", "><").replace("<html><", "<html> <") == (
        "<html> <div main><div><h3> Top Tracks </h3><button id=0 play on youtube> Play all "
        "</button><button> Last 7 days </button><a id=1> Last 30 days </a></div></div></html>"
    )
    assert choices == [
        "<button id=0 play on youtube> Play all </button>",
        "<a id=1> Last 30 days </a>",
    ]


def test_only_near_siblings_stay() -> None:
    row = "".join(link(n, f"w{n}") for n in range(20))
    page, _ = short(f'<p {ID}="p">{row}</p>', "10")
    assert [n for n in range(20) if f"w{n} " in page] == [7, 8, 9, 10, 11, 12, 13]


def test_descendants_stay_for_six_levels_and_fifty_elements() -> None:
    deep = ""
    for level in range(9, 0, -1):
        deep = f'<b {ID}="b{level}" name="n{level}">{deep}</b>'
    page, _ = short(f'<p {ID}="p">{deep}</p>', "p")
    assert [n for n in range(1, 10) if f"n{n}>" in page or f"n{n} />" in page] == [1, 2, 3, 4, 5, 6]
    wide = "".join(f'<b {ID}="b{n}" name="n{n}"/>' for n in range(60))
    page, _ = short(f'<p {ID}="p">{wide}</p>', "p")
    assert page.count("<b ") == 50


def test_wrappers_give_way_and_texts_are_cut() -> None:
    words = " ".join(f"w{n}" for n in range(30))
    inner = f'<i {ID}="i"><u {ID}="u">{link(1, words)}</u></i>'
    page, choices = short(f'<p {ID}="p"><s {ID}="s">{inner}</s></p>', "1")
    kept = " ".join(f"w{n}" for n in range(20))
    assert page == f"<p><a id=0> {kept} </a></p>"
    assert choices == ["<a id=0> w0 w1 w2 w3 w4 w5 w6 w7"]


@pytest.mark.parametrize(
    ("marks", "shown"),
    [
        ('role="Button" type="submit" class="x"', " button submit x"),
        ('title="a b c d e f g"', " a b c d e"),
        ('title="same" name="SAME"', " same"),
        ('value="http://x.org" alt="None" name="null"', ""),
        ('title="internationalisation ok"', " ok"),
        ('href="/x" data-y="z" ng:click="w"', ""),
        ('title="5 &gt; 4 &quot;so&quot;"', ' 5 > 4 "so"'),
    ],
)
def test_attributes_are_their_words(marks: str, shown: str) -> None:
    _, (choice,) = short(f'<p {ID}="p">{link(1, marks=" " + marks)}</p>', "1")
    assert choice == f"<a id=0{shown}> go </a>"


def test_pages_nest_deeper_than_calls() -> None:
    depth = 20_000
    source = f'<div {ID}="d" name="x">' * depth + link(1) + "</div>" * depth
    page, _ = short(source, "1")
    assert page.count("<div x>") == depth


def test_the_page_itself_stays_as_it_is() -> None:
    page = parse_page(f'<p {ID}="p"><s {ID}="s">{link(1)}</s>{link(2)}</p>')
    before = list(xml_of(page))
    prune(page, ["1"])
    assert list(xml_of(page)) == before


@pytest.mark.parametrize(
    "source", ["", "text", "<a>", "<a/><b/>", "<a>&nbsp;</a>", "<a>\ud800</a>"]
)
def test_what_is_no_page(source: str) -> None:
    with pytest.raises(DataError, match="not a well-formed page"):
        parse_page(source)


_TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
_TREES = st.recursive(
    _TEXTS.map(lambda text: Node(TEXT, text=text)),
    lambda below: st.builds(
        Node,
        st.sampled_from(["div", "a", "ul"]),
        st.dictionaries(st.sampled_from(["name", "title", "role", "x"]), _TEXTS, max_size=2),
        st.lists(below, max_size=4),
    ),
    max_leaves=25,
)


@given(_TREES, st.data())
def test_any_page_shows_its_candidates_once_each(tree: Node, data: st.DataObject) -> None:
    top = Node("html", {}, [tree])
    nodes = [node for node, _ in top.walk()]
    for number, node in enumerate(nodes):
        node.attributes = {ID: str(number), **node.attributes}
    elements = [node.id for node in nodes if node.tag != TEXT]
    wanted = data.draw(st.lists(st.sampled_from(elements), min_size=1, max_size=5, unique=True))
    read = parse_page("".join(xml_of(top)).strip())
    page, choices = represent(prune(read, wanted))
    assert [each for each, _ in choices] == sorted(wanted, key=int)
    assert all(
        text.startswith(("<div id=", "<a id=", "<ul id=", "<html id=")) for _, text in choices
    )
    assert len(list(prune(read, wanted).walk())) <= len(nodes)
    assert "  " not in page
