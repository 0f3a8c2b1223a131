"""ALFWorld's rules without the games: matching, goals, data, demonstrations."""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.conversation import Message
from dataset_builders.environments.alfworld import demonstrations, games
from dataset_builders.environments.alfworld.dialogue import AlfworldDialogue
from dataset_builders.environments.alfworld.environment import AlfworldEnvironment
from dataset_builders.environments.alfworld.goals import Goal, read_goal
from dataset_builders.environments.alfworld.habits import Habits
from dataset_builders.environments.alfworld.matching import (
    bleu,
    has_action,
    nearest_action,
    shown_observation,
    spoken_action,
)
from dataset_builders.environments.alfworld.search_oracle import SearchOracle, things_seen
from dataset_builders.environments.base import OracleStep
from dataset_builders.errors import (
    ConfigError,
    DataError,
    EnvironmentFailureError,
    SourceNotFoundError,
)

WORDS = st.lists(
    st.sampled_from(["go", "to", "take", "put", "mug", "1", "desk", "drawer", "from", "in/on"])
)


def test_bleu_by_hand() -> None:
    # Three of three words, both pairs, the one triple, no four: 1 / (2 * 5 / ln 3).
    expected = (math.log(3) / 10) ** 0.25
    assert bleu(["go", "to", "desk"], ["go", "to", "desk"]) == pytest.approx(expected)
    # One word has nothing to smooth: 1 for it, and the brevity penalty exp(1 - 4).
    assert bleu(["take", "mug", "1", "from"], ["mug"]) == pytest.approx(math.exp(-3))
    assert bleu(["look"], ["inventory"]) == 0.0
    assert bleu(["look"], []) == 0.0
    four = ["go", "to", "desk", "1"]
    assert bleu(four, four) == pytest.approx(1.0)


@pytest.mark.slow
@settings(deadline=None)  # The first call imports NLTK, which takes seconds.
@given(reference=WORDS, candidate=WORDS)
def test_bleu_is_nltks(reference: list[str], candidate: list[str]) -> None:
    nltk = pytest.importorskip("nltk.translate.bleu_score")
    smooth = nltk.SmoothingFunction().method4
    expected = nltk.sentence_bleu([reference], candidate, smoothing_function=smooth)
    assert bleu(reference, candidate) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("turn", "action"),
    [
        ("THOUGHT: I look.\n ACTION: Go to Desk 1\n", "go to desk 1"),
        ("ACTION: take mug 1 from desk 1\nACTION: look", "take mug 1 from desk 1"),
        ("ACTION:", ""),
        ("I go to desk 1.\nThen I look.", "i go to desk 1."),
        ("action: look", "action: look"),
        ("", ""),
    ],
)
def test_what_a_turn_asks_for(turn: str, action: str) -> None:
    assert spoken_action(turn) == action
    assert has_action(turn) == ("ACTION:" in turn)


def test_the_command_most_like_the_words_is_played() -> None:
    admissible = ["go to desk 1", "look", "put mug 1 in/on desk 1", "take mug 1 from desk 1"]
    assert nearest_action("put mug 1 on desk 1", admissible) == "put mug 1 in/on desk 1"
    assert nearest_action("desk", admissible) == "go to desk 1"
    assert nearest_action("sing a song", admissible) == "sing a song"
    assert nearest_action("", admissible) == ""
    assert nearest_action("anything", ()) == "anything"
    # Equally like: the first.
    assert nearest_action("open it", ["open safe 1", "open box 1"]) == "open safe 1"


def test_where_one_stands_is_not_shown() -> None:
    assert shown_observation("You arrive at loc 12. On the desk 1, you see a mug 1.") == (
        "On the desk 1, you see a mug 1."
    )
    assert shown_observation("You open the safe 1.") == "You open the safe 1."


@given(
    thought=st.text(max_size=60),
    action=st.text("abcdefghijklmnopqrstuvwxyz 0123456789/").map(str.strip),
)
def test_a_written_move_is_read_as_its_action(thought: str, action: str) -> None:
    dialogue = AlfworldDialogue(AlfworldEnvironment(), AlfworldDialogue.own_prompt())
    assert dialogue.parse(dialogue.write(OracleStep(thought, action))) == action


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("put some pencil on shelf.", Goal("pencil", "shelf")),
        ("put a hot mug in cabinet.", Goal("mug", "cabinet", "heat")),
        ("cool some tomato and put it in microwave.", Goal("tomato", "microwave", "cool")),
        ("find two laptop and put them in bed.", Goal("laptop", "bed", count=2)),
        ("put two cd in safe.", Goal("cd", "safe", count=2)),
        ("examine the cd with the desklamp.", Goal("cd", lamp="desklamp")),
        ("look at box under the floorlamp.", Goal("box", lamp="floorlamp")),
    ],
)
def test_goals(sentence: str, goal: Goal) -> None:
    assert read_goal(sentence) == goal


def test_an_unknown_sentence_is_named() -> None:
    with pytest.raises(EnvironmentFailureError, match="'sing a song'"):
        read_goal("sing a song")


def rows(shared: Path) -> list[dict[str, Any]]:
    with lzma.open(shared / "data/alfworld/games.jsonl.xz", "rt") as lines:
        return [json.loads(line) for line in lines]


TREATMENT = {"clean": "clean", "heat": "heat", "cool": "cool"}


def test_every_real_sentence_is_understood(shared: Path) -> None:
    for row in rows(shared):
        sentence = row["grammar"].partition("Your task is to: ")[2].partition('"')[0]
        goal, wanted = read_goal(sentence), row["pddl_params"]
        assert goal.kind == wanted["object_target"].lower()
        assert goal.target == wanted["parent_target"].lower()
        assert goal.lamp == wanted["toggle_target"].lower()
        assert goal.count == (2 if row["task_type"].startswith("pick_two") else 1)
        assert goal.treatment == TREATMENT.get(row["task_type"].split("_")[1], "")


def test_things_are_read_off_an_observation() -> None:
    seen = things_seen("In it, you see a mug 1, a alarmclock 12, and a cd 3. It is a 4.")
    assert seen == ["mug 1", "alarmclock 12", "cd 3"]
    assert things_seen("On the desk 1, you see nothing.") == []
    assert things_seen("Nothing happens.") == []


def test_habits_leave_the_own_room_out() -> None:
    room = "(inReceptacle Mug_bar_1 Desk_bar_1) (receptacleType Desk_bar_1 DeskType)"
    empty = "(receptacleType Desk_bar_1 DeskType)"
    habits = Habits([("a", room), ("b", empty)])
    assert habits.chance("mug", "desk", "c") == pytest.approx(1.04 / 4)
    assert habits.chance("mug", "desk", "a") == pytest.approx(0.04 / 3)
    assert habits.chance("mug", "desk", "b") == pytest.approx(1.04 / 3)
    # A closed place costs a second move.
    assert habits.worth("mug", "safe", "") == habits.chance("mug", "safe", "") / 2


def played(goal: Goal, room: str, answers: dict[str, str]) -> list[str]:
    oracle = SearchOracle(goal, room, lambda _kind, place: float(place == "desk"), "seed").moves()
    moves, answer = [], None
    try:
        while True:
            move = oracle.send(answer) if answer is not None else next(oracle)
            assert move.thought
            moves.append(move.action)
            answer = answers.get(move.action, "Fine.")
    except StopIteration:
        return moves


def test_the_search_oracle_uses_what_it_has_seen() -> None:
    room = "you see a safe 1, a desk 1, and a bed 1.\nYour task is to: ..."
    answers = {
        "go to desk 1": "On the desk 1, you see a mug 1, and a cd 1.",
        "go to safe 1": "The safe 1 is closed.",
        "open safe 1": "You open the safe 1. The safe 1 is open. In it, you see a cd 2.",
        "go to bed 1": "On the bed 1, you see nothing.",
    }
    assert played(Goal("cd", "bed", count=2), room, answers) == [
        "go to desk 1",
        "take cd 1 from desk 1",
        "go to bed 1",
        "put cd 1 in/on bed 1",
        "go to safe 1",
        "open safe 1",
        "take cd 2 from safe 1",
        "go to bed 1",
        "put cd 2 in/on bed 1",
    ]
    # What lies there already stays, and a search in vain ends.
    assert played(Goal("mug", "desk", count=2), room, answers) == [
        "go to desk 1",
        "go to safe 1",
        "open safe 1",
        "go to bed 1",
    ]


def write_packed(folder: Path, paths: list[str], **lists: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    with lzma.open(folder / "games.jsonl.xz", "wt") as file:
        for path in paths:
            file.write(json.dumps({"gamefile": path, "grammar": "g", "pddl_problem": "p"}) + "\n")
    (folder / "alfred.pddl").write_text("domain")
    for name, listed in lists.items():
        (folder / f"agentbench_{name}.json").write_text(json.dumps({"kind": listed}))
    return folder


def path_of(folder: str, trial: str) -> str:
    return f"json_2.1.1/{folder}/pick_and_place_simple-Mug-None-Desk-1/{trial}/game.tw-pddl"


def test_splits(tmp_path: Path) -> None:
    test, dev = path_of("valid_unseen", "t1"), path_of("valid_seen", "t2")
    train, other = path_of("valid_train", "t3"), path_of("valid_seen", "t4")
    folder = write_packed(tmp_path / "a", [test, dev, train, other], standard=[test], dev=[dev])
    world = AlfworldEnvironment(folder)
    stem = "pick_and_place_simple-Mug-None-Desk-1"
    assert world.task_ids("test") == (f"alfworld-test-{stem}-t1",)
    assert world.task_ids("dev") == (f"alfworld-dev-{stem}-t2",)
    assert world.task_ids("train") == (f"alfworld-train-{stem}-t3",)
    with pytest.raises(ConfigError, match="split 'valid' is unknown"):
        world.task_ids("valid")
    with pytest.raises(ConfigError, match="task 'alfworld-train-x' is unknown"):
        world.reset(options={"task_id": "alfworld-train-x"})


def test_no_evaluated_game_is_trained_on(tmp_path: Path) -> None:
    train, test = path_of("valid_train", "t1"), path_of("valid_unseen", "t1")
    folder = write_packed(tmp_path / "b", [train, test], standard=[test])
    with pytest.raises(DataError, match=r"1 training games are evaluated.*t1"):
        AlfworldEnvironment(folder).task_ids("train")


def damage(name: str, content: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return apply


@pytest.mark.parametrize(
    ("apply", "error", "said"),
    [
        (damage("games.jsonl.xz", b"no xz"), DataError, "expected xz-compressed"),
        (damage("games.jsonl.xz", lzma.compress(b"{")), DataError, "line 1: found no JSON"),
        (damage("games.jsonl.xz", lzma.compress(b"[1]")), DataError, "line 1: found list"),
        (
            damage("games.jsonl.xz", lzma.compress(b'{"gamefile": 3}')),
            DataError,
            "line 1: gamefile: found 3, expected text",
        ),
        (damage("agentbench_standard.json", b"{}"), DataError, "expected lists of paths"),
        (damage("agentbench_standard.json", b"x"), DataError, "found no JSON"),
        (
            damage("agentbench_standard.json", b'{"a": ["json_2.1.1/x/y/z"]}'),
            SourceNotFoundError,
            "1 of 1 games of 'test' are not in .*, the first is json_2.1.1/x/y/z",
        ),
        (
            lambda folder: (folder / "agentbench_standard.json").unlink(),
            SourceNotFoundError,
            "no agentbench_standard.json or standard.json or std.json",
        ),
    ],
)
def test_bad_data_is_told_in_one_line(
    tmp_path: Path, apply: Callable[[Path], None], error: type[Exception], said: str
) -> None:
    test = path_of("valid_unseen", "t1")
    folder = write_packed(tmp_path / "games", [test], standard=[test])
    apply(folder)
    with pytest.raises(error, match=said) as caught:
        AlfworldEnvironment(folder).task_ids("test")
    assert "\n" not in str(caught.value)


def test_absent_data_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"games.jsonl.xz.*json_2.1.1") as caught:
        AlfworldEnvironment(tmp_path).task_ids("test")
    assert "\n" not in str(caught.value)
    # The extra comes first: without it the data would be of no use.
    named = str(tmp_path) if find_spec("alfworld") else "agenttuning-plugin[alfworld]"
    assert named in AlfworldEnvironment.missing(tmp_path)


def test_alfworlds_own_layout_has_the_same_tasks(shared: Path, tmp_path: Path) -> None:
    packed = games.open_games(shared / "data/alfworld")
    chosen = [*games.split_paths(packed, "train")[:2], *games.split_paths(packed, "test")[:1]]
    for path in chosen:
        game = packed.read(path)
        row = {"pddl_domain": game.domain, "grammar": game.grammar, "pddl_problem": game.problem}
        file = tmp_path / path
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(row | {"solvable": True}))
    bad = tmp_path / path_of("valid_train", "t9")
    bad.parent.mkdir(parents=True)
    bad.write_text('{"solvable": false}')
    (tmp_path / "standard.json").write_text(json.dumps({"kind": chosen[2:]}))
    here, there = AlfworldEnvironment(tmp_path), AlfworldEnvironment(shared / "data/alfworld")
    assert here.task_ids("train") == there.task_ids("train")[:2]
    assert here.task_ids("test") == there.task_ids("test")[:1]
    unpacked = games.open_games(tmp_path)
    assert [unpacked.read(path) for path in chosen] == [packed.read(path) for path in chosen]


def test_published_demonstrations_in_both_shapes(tmp_path: Path) -> None:
    file = tmp_path / "react.json"
    texts = ["You are in a room.", "ACTION: look", "You see a mug 1."]
    objects = [
        {"role": role, "content": text}
        for role, text in zip(["user", "agent", "user"], texts, strict=True)
    ]
    file.write_text(json.dumps({"put": texts, "heat": objects, "cool": [{"role": "tool"}]}))
    expected = (Message("user", texts[0]), Message("assistant", texts[1]))
    assert demonstrations.published(file, "put") == expected
    assert demonstrations.published(file, "heat") == expected
    with pytest.raises(DataError, match="cool: turn 0: found no turn of the user"):
        demonstrations.published(file, "cool")
    with pytest.raises(DataError, match="clean: found NoneType, expected a list"):
        demonstrations.published(file, "clean")
    with pytest.raises(SourceNotFoundError, match=r"no file .*absent.json"):
        demonstrations.published(tmp_path / "absent.json", "put")


def test_an_unknown_oracle_is_refused() -> None:
    with pytest.raises(ConfigError, match="oracle: found 'magic', expected 'search' or 'rule'"):
        AlfworldEnvironment(oracle="magic")
