"""MiniWoB++: what needs no browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.errors import ConfigError, SourceNotFoundError
from evaluators.tasks.held_out import load_held_out, miniwob
from evaluators.tasks.held_out.miniwob.actions import KEYS, MAX_TYPED, Command, read_command, typed
from evaluators.tasks.held_out.miniwob.dialogue import MiniWobDialogue
from evaluators.tasks.held_out.miniwob.environment import MiniWobEnvironment, line_of
from evaluators.tasks.held_out.miniwob.oracles import SCRIPTS
from evaluators.tasks.held_out.miniwob.tasks import TASKS, task_and_seed, task_ids
from evaluators.tasks.registry import SuiteSettings


def test_460_episodes_each_beginning_covers_the_tasks() -> None:
    ids = task_ids()
    assert len(ids) == len(set(ids)) == 460
    assert len(TASKS) == 46
    assert {task_and_seed(each)[0] for each in ids[:46]} == set(TASKS) >= set(SCRIPTS)
    assert task_and_seed("miniwob-test-click-tab-2-hard-7") == ("click-tab-2-hard", 7)


def test_the_tasks_are_agent_tunings(shared: Path) -> None:
    told = (shared / "data/miniwob/available_tasks.txt").read_text("utf-8").split()
    assert sorted(told) == sorted(TASKS)


def test_an_unknown_task_split_or_form_is_one_line() -> None:
    with pytest.raises(ConfigError, match="test only"):
        load_held_out("miniwob").task_ids("train")
    with pytest.raises(ConfigError, match="unknown"):
        task_and_seed("miniwob-test-click-tab-10")
    with pytest.raises(ConfigError, match="observation: found 'image'"):
        load_held_out("miniwob", observation="image").task_ids("test")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("click 12", Command("click", "12")),
        ("Click [3]", Command("click", "3")),
        ("type ann lee", Command("type", "ann lee")),
        ('type "ann"', Command("type", "ann")),
        ("press Enter", Command("press", "enter")),
        ("clickxpath //*[@id='a b']", Command("clickxpath", "//*[@id='a b']")),
        ("`clickoption //option[2]`.", Command("clickoption", "//option[2]")),
        ("movemouse //li", Command("movemouse", "//li")),
        ("type a\\nb", Command("type", "a\nb")),
        ("press f12", None),
        ("click", None),
        ("click //a", None),
        ("", None),
    ],
)
def test_both_grammars_are_read(line: str, command: Command | None) -> None:
    assert read_command(line) == command


@given(st.text())
def test_no_text_becomes_a_key_or_what_cannot_be_typed(text: str) -> None:
    left = typed(text + "\ue009\ud800\U0001f600" + text * 40)
    assert len(left) <= MAX_TYPED
    assert not set('"\ue009\ud800\U0001f600') & set(left)
    assert all(ord(each) < 0xD800 or 0xF8FF < ord(each) < 0x10000 for each in left)


def _dialogue() -> MiniWobDialogue:
    return MiniWobDialogue(MiniWobEnvironment(), MiniWobDialogue.own_prompt())


def test_the_last_action_line_counts() -> None:
    dialogue = _dialogue()
    assert dialogue.parse("I see.\nAction: click 1\n- Action: press enter") == "press enter"
    assert dialogue.parse("click 4") == "click 4"
    assert dialogue.parse("I would click 4") is None
    assert dialogue.parse("") is None
    assert all(dialogue.parse(f"Action: press {key}") for key in KEYS)


def test_an_element_is_a_line() -> None:
    box = {"tag": "input", "type": "checkbox", "text": "", "checked": True, "id": "ch0"}
    assert line_of(3, box) == '[3] input checkbox "" checked id=ch0'
    field = {"tag": "input", "type": "text", "text": "", "value": "a", "focused": True}
    assert line_of(1, field) == '[1] input text "" value="a" focused'


def test_without_a_browser_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("miniwob")
    for name in ("MINIWOB_CHROME_BINARY", "MINIWOB_CHROMEDRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceNotFoundError, match="apt-get install chromium chromium-driver"):
        miniwob.make("miniwob", SuiteSettings())
