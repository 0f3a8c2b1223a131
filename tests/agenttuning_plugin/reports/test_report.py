"""The report: its numbers are the mix's, and its page is whole, safe and opens in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenttuning_plugin.reports.mix.page import render_page, show
from agenttuning_plugin.training_data.built_mix import BuiltMix, write_report
from dataset_builders.mixing.eta_schedule import QuotaStage
from dataset_builders.mixing.planning import Plan

MakeRun = Callable[..., tuple[Any, BuiltMix]]

EVIL = "<script>document.title='caught'</script><img src=x onerror=alert(1)>&\"'"
HIDDEN = "turned \u202eback\u202c, zero\u200bwidth, \x1b[31mescape, \x00"

VOID = {"meta", "br", "link", "img", "hr", "input"}
DRAWN = {"line", "rect", "circle", "polygon", "polyline"}  # SVG's, closed where they open


class Page(HTMLParser):
    """Checks that elements nest, and collects them and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag in ("td", "th", "li"):
            self.text.append(" ")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def shown(self) -> str:
        return " ".join("".join(self.text).split())


def account(**changes: Any) -> dict[str, Any]:
    """A source's account, as builders make it."""
    return {
        "source": "sharegpt:/data/chat.json", "read": 12, "kept": 9,
        "dropped": {"no_turns": 2, "duplicate": 1}, "changed": {"strip_html": 4},
        "samples": {"no_turns": ["chat.json:3: found no turn"], "duplicate": [EVIL]},
        "lost": ["chat.json: 12 characters at 99"], "limited": True, "summary": "s",
        "near_duplicates": {"checked": 12, "found": 1}, **changes,
    }  # fmt: skip


def tokens(**changes: Any) -> dict[str, Any]:
    return {
        "read": 9, "kept": 8, "tokens": 1234, "trained_tokens": 567, "truncated": 3,
        "dropped": {"too_long": 1}, "samples": {"too_long": ["chat/1: found 9 tokens"]},
        "pieces": 17, "engine": "tiktoken", "summary": "s", **changes,
    }  # fmt: skip


def full(make_run: MakeRun, **options: Any) -> tuple[BuiltMix, dict[str, Any]]:
    accounts = {"general": {"sources": [account()], "tokens": tokens()}}
    _, run = make_run(report=accounts, **options)
    return run, json.loads(json.dumps(run.report))


# Numbers


@pytest.mark.parametrize("plan", [Plan(eta=0.25, block=8), Plan(eta=0.5, block=8, mode="iid")])
def test_figures_are_those_of_the_rows_drawn(make_run: MakeRun, plan: Plan) -> None:
    rows, run = make_run(plan, num_examples=200)
    figures = run.report["figures"]
    trained = np.array([sum(x != -100 for x in labels) for labels in rows["labels"]])
    agent, row = run.planned.order.rows(np.arange(200))
    tasks = {line["name"]: line for line in figures["composition"]["task"]}
    for number, task in enumerate(["os", "db", "alfworld"]):
        chosen = agent & (row % 3 == number)
        assert tasks[task]["rows"] == 10
        assert tasks[task]["drawn_examples"] == chosen.sum()
        assert tasks[task]["drawn_trained_tokens"] == trained[chosen].sum()
        share = trained[chosen].sum() / trained.sum()
        assert tasks[task]["share_of_trained_tokens"] == pytest.approx(share, abs=1e-6)
    over = figures["eta_over_run"]
    for number, start in enumerate(over["starts"]):
        window = slice(start, start + over["window"])
        share = trained[window][agent[window]].sum() / trained[window].sum()
        assert over["trained_tokens"][number] == pytest.approx(share, abs=1e-6)
        assert over["examples"][number] == pytest.approx(agent[window].mean(), abs=1e-6)
    for side, number in (("agent", 30), ("general", 50)):
        exposures = figures["exposures"][side]
        assert sum(exposures["rows"]) == number
        assert sum(figures["lengths"]["tokens"][side]["rows"]) == number
        of_side = row[agent] if side == "agent" else row[~agent]
        times = np.bincount(of_side, minlength=number)
        for (low, high), found in zip(exposures["ranges"], exposures["rows"], strict=True):
            assert found == ((times >= low) & (times <= high)).sum()


def test_sides_and_lengths_that_are_not_there_are_left_out(make_run: MakeRun) -> None:
    _, run = make_run(Plan(eta=0.0, block=8))
    report = run.report
    assert {line["side"] for line in report["figures"]["composition"]["task"]} == {"general"}
    assert report["figures"]["exposures"]["agent"]["rows"] == []
    page = Page(render_page(report, "general only"))
    assert "Exposures of general rows" in page.shown
    assert "Exposures of agent rows" not in page.shown
    assert {row["side"] for row in report["rows"]} >= {"general"}


def test_ten_million_tasks_do_not_make_a_page_of_them(make_run: MakeRun) -> None:
    _, run = make_run()
    index = run.prepared.general_index
    assert index is not None
    from dataclasses import replace

    names = index.set_column(2, "task", [[f"task {i}" for i in range(50)]])
    run = replace(run, prepared=replace(run.prepared, general_index=names))
    lines = [x for x in run.report["figures"]["composition"]["task"] if x["side"] == "general"]
    assert len(lines) == 41
    assert lines[-1]["name"] == "(10 others)"
    assert sum(line["rows"] for line in lines) == 50


# The page


def test_what_is_lost_stands_above_all_else(make_run: MakeRun) -> None:
    run, report = full(make_run)
    # Three of twelve records; the long one is one of nine conversations.
    assert [line.split(":")[0] for line in report["warnings"]] == ["general", "general", "general"]
    text = render_page(report, "my mix")
    page = Page(text)
    for line in report["warnings"]:
        assert line in page.shown
    assert text.index(report["warnings"][0]) < text.index('class="tiles"')
    assert "warnings" not in Page(render_page(report | {"warnings": []}, "x")).shown
    assert run.prepared.report["general"]["tokens"]["dropped"] == {"too_long": 1}


@pytest.mark.parametrize("eta", [0.25, 0.75])
def test_the_sentence_about_shares_is_that_of_the_table(make_run: MakeRun, eta: float) -> None:
    rows, run = make_run(Plan(eta=eta, block=8), num_examples=96)
    agent, _ = run.planned.order.rows(np.arange(96))
    trained = np.array([sum(x != -100 for x in labels) for labels in rows["labels"]])
    share = trained[agent].sum() / trained.sum()
    means = trained[agent].mean(), trained[~agent].mean()
    assert (
        f"Agent data are {eta:.1%} of the examples and {share:.1%} of the tokens that the loss "
        f"covers: an example of agent data has {means[0]:,.0f} trained tokens on average, one of "
        f"general data {means[1]:,.0f}." in Page(render_page(run.report, "x")).shown
    )


def test_the_page_shows_all_of_the_report(make_run: MakeRun) -> None:
    _, report = full(make_run)
    page = Page(render_page(report, "my mix"))
    for words in (
        "my mix: report of the mix", "96 examples, seed 7, stratified sampling in blocks of 8",
        "the ratio of GPT-4 to other conversations (0.2 : 0.8) was applied",
        "12 records read, 9 kept, stopped at the limit", "no turns 2", "duplicate 1",
        "chat.json:3: found no turn", "strip html 4", "chat.json: 12 characters at 99",
        "near duplicates: checked 12", "near duplicates: found 1",
        "9 conversations, 8 kept", "too long 1", "truncated 3", "pieces 17", "engine tiktoken",
        "Rows hold at most 4,096 tokens", "alfworld", "agent-", "general-", "agent.jsonl:",
    ):  # fmt: skip
        assert words in page.shown, words
    marked = [attributes for tag, attributes in page.elements if tag == "mark"]
    assert len(marked) > 6
    plots = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(plots) == 5
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for attributes in plots:
        assert attributes["role"] == "img"
        assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)


def test_the_page_needs_nothing_from_elsewhere(make_run: MakeRun) -> None:
    _, report = full(make_run)
    text = render_page(report, "mix")
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.elements:
        assert not set(attributes) & {"src", "href", "xlink:href", "action", "data", "srcset"}
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"(?:https?:)?//\w", text)
    assert not re.search(r"url\(|@import", text)


def test_data_cannot_become_markup(make_run: MakeRun) -> None:
    _, report = full(make_run, said=EVIL)
    report["notes"] = [EVIL]
    report["rows"][0] |= {"id": EVIL, "task": EVIL, "where": EVIL}
    report["figures"]["composition"]["task"][0]["name"] = EVIL
    report["general"]["sources"][0] |= {"source": EVIL, EVIL: {EVIL: EVIL}, "lost": [EVIL]}
    report["general"]["sources"][0]["dropped"][EVIL] = 1
    text = render_page(report, EVIL)
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "img"}
    assert text.count("&lt;script&gt;") > 12
    assert page.shown.count("<script>document.title='caught'</script>") > 12


@given(st.text(st.characters(codec=None), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_shown(text: str) -> None:
    shown = str(show(text))
    page = Page(f"<p>{shown}</p>")
    assert {tag for tag, _ in page.elements} <= {"p", "i"}
    assert "\x00" not in shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\x1b]", shown)


def test_hidden_and_endless_text_is_made_readable() -> None:
    shown = str(show(HIDDEN))
    for code in ("U+202E", "U+202C", "U+200B", "U+001B", "U+0000"):
        assert f"<i class=hidden>{code}</i>" in shown
    long = str(show("z" * 10_000_000))
    assert len(long) < 600
    assert "9,999,600 characters" in long


def test_a_turn_of_ten_megabytes_is_shortened() -> None:
    from agenttuning_plugin.reports.mix.samples import _shortened
    from agenttuning_plugin.reports.segments import Segment

    shown = _shortened([Segment("q" * 10_000_000, True)] * 50)
    assert sum(len(text) for text, _ in shown) < 70_000
    assert shown[-1][0] == " … 10 more pieces"


def test_odd_text_reaches_the_files(make_run: MakeRun, tmp_path: Path) -> None:
    _, report = full(make_run)
    report["notes"] = ["lone \ud800 surrogate", HIDDEN]
    write_report(tmp_path, report, "\udcff", "report")
    assert json.loads((tmp_path / "report.json").read_text("utf-8")) == report
    assert "U+D800" in Page((tmp_path / "report.html").read_text("utf-8")).shown


# A browser


@pytest.fixture(scope="session")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium: apt-get install chromium")


def browse(browser: str, page: Path, folder: Path, *options: str) -> str:
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars",
        "--virtual-time-budget=2000", *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_the_page_opens_in_a_browser(browser: str, make_run: MakeRun, tmp_path: Path) -> None:
    plan = Plan(eta=(QuotaStage(0, 0.1), QuotaStage(400, 0.5)), block=8)
    _, report = full(make_run, plan=plan, num_examples=800, said=EVIL)
    write_report(tmp_path, report, EVIL, "report")
    dumped = Page(browse(browser, tmp_path / "report.html", tmp_path, "--dump-dom"))
    # Parsed by the browser the page is the same, and no script has run.
    assert not {tag for tag, _ in dumped.elements} & {"script", "img"}
    assert dumped.shown.startswith("<script>document.title='caught'</script>")
    assert len([tag for tag, _ in dumped.elements if tag == "svg"]) == 5
    assert "Rows of the mix" in dumped.shown
    assert "0.1, then 0.5 from 400" in dumped.shown
    picture = tmp_path / "page.png"
    size = "--window-size=1200,3000"
    browse(browser, tmp_path / "report.html", tmp_path, f"--screenshot={picture}", size)
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 50_000  # a blank page of that size has some 10 kB
