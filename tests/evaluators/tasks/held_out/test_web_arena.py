"""WebArena: the dialogue over a browser that is a stand-in.

The sites cannot run here, nor can BrowserGym be installed beside training; what is played
with is a small object with BrowserGym's interface.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.endpoints.reply import Reply
from dataset_builders.errors import (
    ConfigError,
    DataError,
    MissingExtraError,
    SourceNotFoundError,
)
from dataset_builders.rollouts.episode import Episode
from evaluators.tasks.held_out import load_held_out
from evaluators.tasks.held_out.web_arena import actions, browser, make
from evaluators.tasks.held_out.web_arena.dialogue import WebArenaDialogue
from evaluators.tasks.held_out.web_arena.environment import WebArenaEnvironment, shortened
from evaluators.tasks.held_out.web_arena.evaluator import WebArenaEvaluator
from evaluators.tasks.held_out.web_arena.tasks import read_tasks
from evaluators.tasks.registry import SuiteSettings

SITE = "http://shop.test"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("click [12]", "click('12')"),
        ("type [3] [it's [so]] [1]", "fill('3', \"it's [so]\")\npress('3', 'Enter')"),
        ("type [3] [x] [press_enter_after=0]", "fill('3', 'x')"),
        ("scroll [direction=up]", "scroll(0, -640)"),
        ("scroll down", "scroll(0, 640)"),
        ("tab_focus [tab_index=2]", "tab_focus(2)"),
        ("goto [http://a.test/b]", "goto('http://a.test/b')"),
        ("press [Control+v]", "keyboard_press('Control+v')"),
        ("stop [N/A]", "send_msg_to_user('N/A')"),
        ("close_tab", "tab_close()"),
    ],
)
def test_actions_become_browsergym_calls(text: str, calls: str) -> None:
    found = actions.read(text)
    assert found is not None
    assert actions.to_browsergym(*found) == calls


@pytest.mark.parametrize(
    "text",
    [
        "",
        "click",
        "click 12",
        "jump [1]",
        "type [1]",
        "tab_focus [x]",
        "scroll [left]",
        "go_back [1]",
    ],
)
def test_what_is_no_action_is_not_read(text: str) -> None:
    assert actions.read(text) is None


class Shop:
    """BrowserGym's interface over two pages; the second one is the right one."""

    def __init__(self, number: int) -> None:
        self.number, self.url, self.closed, self.calls = number, f"{SITE}/", False, []

    def reset(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._seen(), {}

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.calls.append(action)
        error = ""
        if action == "click('7')":
            self.url = f"{SITE}/kettle"
        elif action.startswith("click"):
            error = "ValueError: no such element\nTraceback"
        right = self.url.endswith("kettle") and action.startswith("send_msg_to_user")
        return self._seen(error), float(right), right, False, {}

    def close(self) -> None:
        self.closed = True

    def _seen(self, error: str = "") -> dict[str, Any]:
        return {
            "axtree_txt": f"[7] link 'Kettle' of {self.url}",
            "url": self.url,
            "open_pages_urls": (self.url,),
            "last_action_error": error,
        }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    def row(number: int, **scored: Any) -> dict[str, Any]:
        blank = {"reference_answers": None, "reference_url": "", "program_html": []}
        return {
            "task_id": number,
            "intent": "Find the {observation}",
            "sites": ["shopping"],
            "eval": blank | scored,
        }

    rows = [
        row(0, eval_types=["string_match"], reference_answers={"exact_match": "42"}),
        row(1, eval_types=["url_match"], reference_url="__SHOPPING__/kettle"),
        row(2, eval_types=["program_html"]),
        row(3, eval_types=["string_match"], reference_answers={"fuzzy_match": ["x"]}),
        row(
            4,
            eval_types=["string_match", "url_match"],
            reference_answers={"must_include": ["42"]},
            reference_url="__SHOPPING__/kettle",
        ),
    ]
    (tmp_path / "test.raw.json").write_text(json.dumps(rows), "utf-8")
    return tmp_path


def play(folder: Path, number: int, turns: list[str]) -> tuple[Episode, list[Shop]]:
    """An episode with these turns, said in order and again."""
    opened: list[Shop] = []

    def open_task(task: int) -> Shop:
        opened.append(Shop(task))
        return opened[-1]

    world = WebArenaEnvironment(folder, open_task=open_task)
    episode = Episode(0, f"web_arena-test-{number}")
    episode.start(WebArenaDialogue(world, WebArenaDialogue.own_prompt()))
    for turn in turns * 30:
        if episode.exit_reason:
            break
        episode.act(Reply(turn))
    return episode, opened


@pytest.mark.parametrize(
    ("number", "turns", "reward"),
    [
        (0, ["So: ```stop [42]```"], 1.0),
        (0, ["So: ```stop [41]```"], 0.0),
        (1, ["```click [7]```", "```stop []```"], 1.0),
        (1, ["```stop []```"], 0.0),
        (2, ["```click [7]```", "```stop```"], 1.0),
        (2, ["```go_back```", "```stop [x]```"], 0.0),
        (4, ["```click [7]```", "```stop [42]```"], 1.0),
        (4, ["```click [7]```", "```stop [41]```"], 0.0),
        (4, ["```stop [42]```"], 0.0),
    ],
)
def test_tasks_of_each_kind_are_scored(
    folder: Path, number: int, turns: list[str], reward: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WA_SHOPPING", SITE)
    episode, opened = play(folder, number, turns)
    assert (episode.reward, episode.exit_reason) == (reward, "answered")
    assert opened[0].closed


@pytest.mark.parametrize(
    ("turns", "reason", "rounds"),
    [
        (["I do not know"], "bad_format", 3),
        (["```click [1]```"], "repeated_action", 3),
        (["```type [1] [a]```", "```go_back```"], "repeated_action", 5),
        (["```go_back```", "```go_forward```"], "round_limit", 30),
    ],
)
def test_an_episode_that_leads_nowhere_ends(
    folder: Path, turns: list[str], reason: str, rounds: int
) -> None:
    episode, opened = play(folder, 0, turns)
    assert (episode.exit_reason, episode.num_rounds, episode.reward) == (reason, rounds, 0.0)
    assert opened[0].closed


def test_a_page_that_is_right_when_the_model_gives_up_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WA_SHOPPING", SITE)
    episode, _ = play(folder, 1, ["```click [7]```"])
    assert (episode.exit_reason, episode.reward, episode.success) == ("repeated_action", 1.0, True)


def test_the_model_sees_the_page_at_hand_and_its_last_action(folder: Path) -> None:
    episode, _ = play(folder, 0, ["```click [9]```", "```scroll [down]```"])
    assert episode.dialogue is not None
    opening = len(episode.dialogue.prompt.opening)
    second = episode.messages[opening + 2].content
    assert second.endswith("TASK: Find the {observation}\nLAST ACTION: click [9]")
    assert "ERROR: ValueError: no such element\n" in second
    shown = episode.dialogue.trim(episode.messages[: opening + 3])
    assert shown == (*episode.dialogue.prompt.opening, episode.messages[opening + 2])


def test_long_pages_are_cut() -> None:
    text = "[1] link 'abcdefghij 1234'\n" * 2000
    cut = shortened(text, 1920)
    assert text.startswith(cut)
    assert len(cut) < len(text)
    assert shortened(cut, 1920) == cut
    assert shortened("short\n", 1920) == "short\n"


def test_what_is_missing_is_one_line_that_names_the_sites(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for site in browser.SITES:
        monkeypatch.delenv(f"WA_{site}", raising=False)
    if not browser.installed():
        with pytest.raises(MissingExtraError, match="browsergym-webarena") as raised:
            make("web_arena", SuiteSettings())
        assert all(f"WA_{site}" in str(raised.value) for site in browser.SITES)
        assert "\n" not in str(raised.value)
    monkeypatch.setattr(browser, "installed", lambda: True)
    monkeypatch.setenv("WA_MAP", SITE)
    with pytest.raises(ConfigError, match="WA_SHOPPING, WA_SHOPPING_ADMIN") as told:
        make("web_arena", SuiteSettings())
    assert "WA_MAP" not in str(told.value)
    for site in browser.SITES:
        monkeypatch.setenv(f"WA_{site}", SITE)
    with pytest.raises(SourceNotFoundError, match=r"no test\.raw\.json"):
        make("web_arena", SuiteSettings(data=str(folder)))
    options = {"web_arena": {"data": str(folder)}}
    assert isinstance(make("web_arena", SuiteSettings(options=options)), WebArenaEvaluator)


def test_without_a_judge_its_tasks_are_left_out_and_told(folder: Path) -> None:
    evaluator = WebArenaEvaluator(load_held_out("web_arena", data=folder))
    assert sorted(evaluator.items()) == [f"web_arena-test-{n}" for n in (0, 1, 2, 4)]
    assert evaluator.about()["decoding"] == "temperature 1.0, top-p 0.9, seed 0"
    assert evaluator.about()["left_out"] == "1 tasks that need a judge"
    assert len(WebArenaEvaluator(load_held_out("web_arena", data=folder), judged=True).items()) == 5


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "test.raw.json"
    for text, said in (
        ("{", "test.raw.json: "),
        ("{}", "found dict, expected a list"),
        ('[{"eval": {"eval_types": []}}]', "record 0: found no 'task_id'"),
        ('[{"eval": {"eval_types": ["x"]}}]', "eval_types: found 'x', expected string_match"),
    ):
        file.write_text(text, "utf-8")
        read_tasks.cache_clear()
        with pytest.raises(DataError, match=said):
            read_tasks(file)
