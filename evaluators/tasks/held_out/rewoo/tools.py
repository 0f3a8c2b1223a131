"""Tools of a plan; those whose requirements are missing refuse, and this is counted."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import urllib.parse
import urllib.request
import weakref
from collections.abc import Callable
from pathlib import Path

from dataset_builders.errors import AgentTuningError
from evaluators.tasks.held_out.hotpot_qa.pages import Page
from evaluators.tasks.held_out.hotpot_qa.wikipedia import WIKIPEDIA, WikipediaStore
from evaluators.tasks.held_out.rewoo.calculator import calculate

LLM = "LLM"
"""The model itself; asked by the evaluator, in batches."""
CALCULATOR = "Calculator"

DESCRIPTIONS = {
    "Wikipedia": "the beginning of a page about a person, place, work or event. Input: a name.",
    LLM: "a language model like you, for common sense and general knowledge. Input: any request.",
    "WolframAlpha": "solves equations and converts units. Input: an equation or a function.",
    CALCULATOR: "computes. Input: an arithmetic expression in digits.",
    "Google": "short facts from a web search. Input: a search query.",
    "SearchSOTU": "the passage of the State of the Union Address 2023 that fits best. "
    "Input: a search query.",
}

GOOGLE = "https://google.serper.dev/search"
WOLFRAM = "https://api.wolframalpha.com/v1/result"
_TIMEOUT = 30.0
_PASSAGE = 1000
_SENTENCES = 5
_WORD = re.compile(r"\w+")


class RefusedError(Exception):
    """A tool cannot work here; the message becomes the evidence."""


class ToolBox:
    """All tools except the model itself; thread-safe.

    Args:
        document: The URL that `SearchSOTU` searches, or None.
        wikipedia: "live" or the address of a MediaWiki API; refused if None.
        google_url: URL of the search service, with its key in SERPER_API_KEY.
        wolfram_url: URL of the service, with its key in WOLFRAM_ALPHA_APPID.
    """

    def __init__(
        self,
        document: Path | None = None,
        wikipedia: str | None = None,
        google_url: str = GOOGLE,
        wolfram_url: str = WOLFRAM,
    ) -> None:
        self._google_url, self._wolfram_url = google_url, wolfram_url
        url = WIKIPEDIA if wikipedia == "live" else wikipedia
        self._wikipedia = WikipediaStore(url) if url else None
        self._passages = _index(document.read_text("utf-8")) if document else None
        self._searching = threading.Lock()
        if self._passages is not None:
            weakref.finalize(self, self._passages.close)
        self._tools: dict[str, Callable[[str], str]] = {
            CALCULATOR: calculate,
            "Google": self._google,
            "SearchSOTU": self._search,
            "Wikipedia": self._look,
            "WolframAlpha": self._wolfram,
        }

    def use(self, tool: str, asked: str) -> str:
        """Call a tool.

        Raises:
            RefusedError: It is unknown, lacks a requirement, or failed.
        """
        if tool not in self._tools:
            raise RefusedError(f"There is no tool {tool}.")
        try:
            return self._tools[tool](asked)
        except (AgentTuningError, OSError, ValueError, KeyError) as error:
            raise RefusedError(f"{tool} failed: {error}") from error

    def working(self) -> tuple[str, ...]:
        """Return the names of the tools whose requirements are met."""
        there = {
            LLM: True,
            CALCULATOR: True,
            "SearchSOTU": self._passages is not None,
            "Wikipedia": self._wikipedia is not None,
            "Google": "SERPER_API_KEY" in os.environ,
            "WolframAlpha": "WOLFRAM_ALPHA_APPID" in os.environ,
        }
        return tuple(name for name, works in there.items() if works)

    def _look(self, entity: str) -> str:
        if self._wikipedia is None:
            raise RefusedError("Wikipedia is not available here.")
        found = self._wikipedia.find(entity)
        if isinstance(found, Page):
            return " ".join(found.sentences()[:_SENTENCES])
        return f"Could not find [{entity}]. Similar: {found}."

    def _search(self, query: str) -> str:
        if self._passages is None:
            raise RefusedError("The State of the Union Address is not available here.")
        words = dict.fromkeys(_WORD.findall(query.casefold()))
        wanted = " OR ".join(f'"{word}"' for word in words) or '""'
        with self._searching:  # Several questions may be processed at once.
            row = self._passages.execute(
                "SELECT text FROM passage WHERE passage MATCH ? ORDER BY bm25(passage), rowid",
                (wanted,),
            ).fetchone()
        return row[0] if row else "Nothing was found."

    def _google(self, query: str) -> str:
        body = json.dumps({"q": query}).encode()
        headers = {
            "X-API-KEY": _key("Google", "SERPER_API_KEY"),
            "Content-Type": "application/json",
        }
        response = json.loads(_fetch(urllib.request.Request(self._google_url, body, headers)))
        box = response.get("answerBox") or {}
        if short := box.get("answer") or box.get("snippet"):
            return str(short)
        hits = [str(hit["snippet"]) for hit in response.get("organic", []) if "snippet" in hit]
        return " ".join(hits[:3]) or "Nothing was found."

    def _wolfram(self, asked: str) -> str:
        key = _key("WolframAlpha", "WOLFRAM_ALPHA_APPID")
        parameters = urllib.parse.urlencode({"appid": key, "i": asked})
        return _fetch(urllib.request.Request(f"{self._wolfram_url}?{parameters}"))


def _key(tool: str, variable: str) -> str:
    if variable not in os.environ:
        raise RefusedError(f"{tool} is not available here: {variable} is not set.")
    return os.environ[variable]


def _fetch(request: urllib.request.Request) -> str:
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        return str(answer.read().decode("utf-8", "replace"))


def _index(text: str) -> sqlite3.Connection:
    passages = [""]
    for paragraph in text.splitlines():
        if len(passages[-1]) + len(paragraph) > _PASSAGE:
            passages.append("")
        passages[-1] = f"{passages[-1]}\n{paragraph}".strip()
    base = sqlite3.connect(":memory:", check_same_thread=False)
    base.execute("CREATE VIRTUAL TABLE passage USING fts5(text)")
    base.executemany("INSERT INTO passage VALUES (?)", ((passage,) for passage in passages))
    return base
