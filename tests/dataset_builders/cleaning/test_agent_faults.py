"""Known faults of AgentInstruct: counted as they are, repaired or dropped only on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.cleaning.agent_faults import is_foreign
from dataset_builders.cleaning.steps import Cleaning
from dataset_builders.cleaning.terminal import plain_output
from dataset_builders.errors import ConfigError
from dataset_builders.readers.building import LoadResult
from dataset_builders.sources.loading import SourceSpec, fingerprint, load_source

STEPS = ("strip_terminal_sequences", "remove_earlier_task", "drop_foreign_thoughts")
RULES = "You work on a Linux system.\n\nNow, my problem is:\n\n"
NEXT = "Now, I will start a new problem in a new OS. My problem is:\n\n"
SHOWN = "The output of the OS:\n\n\x1b[01;34mattic\x1b[0m\r\nnotes\r\n"
PROMPT = "\x1b]0;root@0a1b: /\x07root@0a1b:/# \x1b[K"


def turn(role: str, value: str, loss: bool | None = None) -> dict[str, Any]:
    return {"from": role, "loss": loss, "value": value}


def shell_row(*, demonstration_trained: bool = False) -> dict[str, Any]:
    return {
        "id": "os_7",
        "conversations": [
            turn("human", f"{RULES}How many users are there?"),
            turn("gpt", "Think: I count.\n\nAct: answer(4)", demonstration_trained),
            turn("human", f"{NEXT} \n\nWhich folder is there?"),
            turn("gpt", "Think: I look.\n\nAct: bash\n\n```bash\nls\n```", True),
            turn("human", SHOWN + PROMPT),
            turn("gpt", "Think: It is \x1b[1mattic\x1b[0m.\n\nAct: answer(attic)", True),
        ],
    }


def page_row(thought: str, rest: str = "Answer: B.\nAction: CLICK") -> dict[str, Any]:
    prompt = (
        "'''\n<html> <a id=0> Bread recipes </a> <input id=1 text search recipes /> </html>\n"
        "'''\n\n"
        "Based on the HTML webpage above, try to complete the following task:\n"
        "Task: Find a recipe of rye bread that takes less than 2 hours\nPrevious actions:\nNone\n"
        "What should be the next action? Please select from the following choices:\n\n"
        "A. None of the above\nB. <a id=0> Bread recipes </a>\n"
        "C. <input id=1 text search recipes />"
    )
    return {
        "id": "mind2web_3",
        "conversations": [
            turn("human", prompt),
            turn("gpt", f"\nThought: {thought}\n{rest}", True),
        ],
    }


def load(folder: Path, rows: list[dict[str, Any]], *steps: str) -> LoadResult:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    clean = {"clean": steps} if steps else {}
    return load_source(SourceSpec(str(path), "agentinstruct", **clean))  # type: ignore[arg-type]


def test_faults_are_counted_and_texts_stay_verbatim(tmp_path: Path) -> None:
    row = shell_row()
    found = load(tmp_path, [row, page_row("I book the flight to Lisbon."), page_row("Rye bread.")])
    assert found.report.faults == {
        "terminal_sequences": 1,
        "earlier_task": 1,
        "foreign_thought": 1,
    }
    assert found.report.to_dict()["faults"]["earlier_task"] == 1
    assert "; known faults: " in found.report.summary()
    assert found.report.kept == 3
    assert found.report.changed == {}
    texts = [message.content for message in found.conversations[0].messages]
    assert texts == [each["value"] for each in row["conversations"]]


def test_a_report_without_faults_has_no_such_entry(tmp_path: Path) -> None:
    report = load(tmp_path, [page_row("Rye bread recipes are behind this link.")]).report
    assert "faults" not in report.to_dict()
    assert "known faults" not in report.summary()


def test_terminal_sequences_and_prompts_are_removed_from_observations(tmp_path: Path) -> None:
    found = load(tmp_path, [shell_row()], "strip_terminal_sequences")
    messages = found.conversations[0].messages
    assert messages[4].content == "The output of the OS:\n\nattic\nnotes\n"
    # The model's own words are never altered.
    assert messages[5].content == "Think: It is \x1b[1mattic\x1b[0m.\n\nAct: answer(attic)"
    assert found.report.changed == {"strip_terminal_sequences": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@b.org:/# stays", "a@b.org:/# stays"),  # No title before it, so it may be content.
        (f"x{PROMPT}", "x"),
        ("\x1b[40;33;01mdisk\x1b[m\x1b[K 5 $ 3", "disk 5 $ 3"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b]0;user@h: ~\x07user@h:~$ ls", "ls"),
    ],
)
def test_output_of_a_terminal(text: str, expected: str) -> None:
    assert plain_output(text) == expected


def test_the_solved_task_before_the_own_one_is_removed(tmp_path: Path) -> None:
    found = load(tmp_path, [shell_row()], "remove_earlier_task")
    messages = found.conversations[0].messages
    assert [m.role for m in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[0].content == f"{RULES}Which folder is there?"
    assert [m.trained for m in messages if m.role == "assistant"] == [True, True]
    assert found.report.changed == {"remove_earlier_task": 2}


def test_a_trained_turn_is_never_removed(tmp_path: Path) -> None:
    found = load(tmp_path, [shell_row(demonstration_trained=True)], "remove_earlier_task")
    assert len(found.conversations[0].messages) == 6
    assert found.report.changed == {}
    assert found.report.faults["earlier_task"] == 1


def test_a_row_in_other_words_is_left_unchanged(tmp_path: Path) -> None:
    row = shell_row()
    row["conversations"][0]["value"] = "How many users are there?"
    found = load(tmp_path, [row], "remove_earlier_task")
    assert len(found.conversations[0].messages) == 6
    assert found.report.changed == {}


def test_thoughts_about_another_task_are_dropped(tmp_path: Path) -> None:
    rows = [page_row("I book the flight to Lisbon."), page_row("I look for rye bread.")]
    found = load(tmp_path, rows, "drop_foreign_thoughts")
    assert (found.report.kept, found.report.dropped) == (1, {"foreign_thought": 1})
    assert "another task than its prompt" in found.report.samples["foreign_thought"][0]


@pytest.mark.parametrize(
    ("thought", "rest", "foreign"),
    [
        ("The rental car needs insurance.", "Answer: A. None of the above", True),
        ("The next field has to be filled.", "Answer: C.\nAction: TYPE\nValue: Smith", True),
        ("The next field has to be filled.", "Answer: C.\nAction: TYPE\nValue: rye bread", False),
        ("I need to click on the next link.", "Answer: B.", False),
        ("Recipes of bread are listed here.", "Answer: B.\nAction: CLICK", False),
        ("To search for rye bread, I type it into the field.", "Answer: C.", False),
        # One unknown word, such as a synonym, is not enough.
        ("Baking is behind this link.", "Answer: B.", False),
    ],
)
def test_what_a_thought_is_about(thought: str, rest: str, foreign: bool) -> None:
    prompt, answer = (each["value"] for each in page_row(thought, rest)["conversations"])
    assert is_foreign(prompt, answer) is foreign
    assert not is_foreign("Tell me about bread.", answer)


def test_all_steps_together(tmp_path: Path) -> None:
    rows = [shell_row(), page_row("I book the flight to Lisbon.")]
    found = load(tmp_path, rows, *STEPS)
    text = "".join(message.content for message in found.conversations[0].messages[:3])
    assert "\x1b" not in text
    assert len(found.conversations) == 1


def test_steps_are_part_of_the_fingerprint_and_their_absence_is_not(tmp_path: Path) -> None:
    load(tmp_path, [shell_row()])
    path = str(tmp_path / "rows.jsonl")
    bare = fingerprint(SourceSpec(path, "agentinstruct"))
    assert fingerprint(SourceSpec(path, "agentinstruct", clean=())) == bare
    assert fingerprint(SourceSpec(path, "agentinstruct", clean=STEPS)) != bare  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format_", "clean", "expected"),
    [
        ("agentinstruct", ["strip"], "clean.0: found 'strip', input should be 'strip_terminal_s"),
        ("sharegpt", [*STEPS], "found a list for format sharegpt, expected one only for agentin"),
        ("agentinstruct", {"join_user_turns": True}, "clean: set for format agentinstruct"),
        ("sharegpt", {"languag": "en"}, "clean.languag: unknown key, did you mean language?"),
    ],
)
def test_wrong_steps_are_named(tmp_path: Path, format_: Any, clean: Any, expected: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(shell_row()) + "\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_source(SourceSpec(str(tmp_path / "rows.jsonl"), format_, clean=clean))
    assert expected in str(caught.value)


def test_one_step_needs_no_list() -> None:
    spec = SourceSpec("x", "agentinstruct", clean=STEPS[0])  # type: ignore[arg-type]
    assert spec.clean == STEPS[:1]


def test_chat_steps_are_as_before() -> None:
    assert SourceSpec("x", "sharegpt", clean=False).clean == Cleaning.none()  # type: ignore[arg-type]
    assert SourceSpec("x", "sharegpt", clean={"language": None}).clean == Cleaning(language=None)  # type: ignore[arg-type]
    assert SourceSpec("x", "sharegpt").clean is None


def test_real_rows_are_cleaned_completely(shared: Path) -> None:
    path = str(shared / "data/agentinstruct/os.jsonl")
    raw, clean = (
        load_source(SourceSpec(path, "agentinstruct", **given)).conversations  # type: ignore[arg-type]
        for given in ({}, {"clean": STEPS})
    )
    assert len(raw) == len(clean)
    for before, after in zip(raw, clean, strict=True):
        assert [m.content for m in before.messages if m.trained] == [
            m.content for m in after.messages if m.trained
        ]
        text = "".join(message.content for message in after.messages)
        assert "\x1b" not in text
        assert "root@" not in text
        assert "/etc" not in after.messages[0].content
        assert len(after.messages) == len(before.messages) - 6
