"""What all conversations share: history, wording, specs, registration, validation."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.conversation import Message
from dataset_builders.environments import (
    HELD_IN,
    EnvironmentSpec,
    load_environment,
    register_environments,
)
from dataset_builders.environments.base import Oracle, OracleStep, StepResult, TextEnvironment
from dataset_builders.environments.database.dialogue import DatabaseDialogue
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.environments.history import MAX_SEGMENTS, count_segments, trim_history
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.rollouts.validation import validate

# History


def slow_count(text: str) -> int:
    """The rule in one expression: seven letters, or one other visible character."""
    letters = r"[^\W\d_]"
    pieces = re.findall(rf"{letters}{{1,7}}|[^ \n]", text)
    return len(pieces)


@given(st.text(st.characters(codec="latin-1"), max_size=200))
def test_segments_are_counted_as_by_the_expression(text: str) -> None:
    plain = "".join(c for c in text if c.isalpha() == bool(re.match(r"[^\W\d_]", c)))
    assert count_segments(plain) == slow_count(plain)


def slow_trim(messages: list[Message], limit: int) -> tuple[list[str], int]:
    """Try every suffix that may be shown, the longest first."""
    first = count_segments(messages[0].content)
    for start in range(1, len(messages) + 1):
        shown = messages[start:]
        fits = first + sum(count_segments(m.content) for m in shown) < limit
        if (fits or not shown) and (start == 1 or not shown or shown[0].role == "assistant"):
            return [m.content for m in shown], start - 1
    raise AssertionError("the empty suffix always fits")


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=9).filter(lambda sizes: len(sizes) % 2),
    st.integers(1, 120),
)
def test_history_keeps_the_first_and_the_latest_turns(sizes: list[int], limit: int) -> None:
    messages = [
        Message("user" if index % 2 == 0 else "assistant", "! " * size + str(index))
        for index, size in enumerate(sizes)
    ]
    first, *rest = trim_history(messages, limit)
    shown, omitted = slow_trim(messages, limit)
    assert [message.content for message in rest] == shown
    notice = f"\n\n[NOTICE] {omitted} messages are omitted." if omitted else ""
    assert first.content == messages[0].content + notice


def test_a_long_dialogue_is_trimmed_before_the_model_sees_it() -> None:
    long = [Message("user", "q")]
    for _ in range(4):
        long += [Message("assistant", "a"), Message("user", "! " * (MAX_SEGMENTS // 3))]
    first, *rest = load_environment("database").make().trim(long)
    assert first.content == "q\n\n[NOTICE] 4 messages are omitted."
    assert rest == long[5:]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 120))
def test_a_system_opening_keeps_the_users_first_message(sizes: list[int], limit: int) -> None:
    messages = [Message("system", "! " * 5), Message("user", "task")]
    for number, size in enumerate(sizes):
        messages += [Message("assistant", f"a{number}"), Message("user", "! " * size)]
    system, task, *rest = trim_history(messages, limit)
    assert (system, task.content[:4]) == (messages[0], "task")
    assert rest == messages[len(messages) - len(rest) :]
    omitted = len(messages) - 2 - len(rest)
    assert task.content[4:] == (f"\n\n[NOTICE] {omitted} messages are omitted." if omitted else "")
    assert not rest or (rest[0].role, rest[-1].role) == ("assistant", "user")


# Wording


@given(st.text(), st.text())
def test_values_are_put_in_once_and_never_read_as_fields(before: str, value: str) -> None:
    piece = before.replace("{", "") + "{observation}|{other}"
    filled = Prompt("own", (), {"first": piece}).fill("first", observation=value)
    assert filled == before.replace("{", "") + value + "|{other}"
    assert Prompt("own", ()).fill("first", observation=value) == value


def test_the_label_tells_wordings_apart() -> None:
    one = Prompt("own", (Message("user", "a"),))
    assert re.fullmatch(r"own:[0-9a-f]{8}", one.label)
    assert one.label == Prompt("own", (Message("user", "a"),)).label
    assert one.label != Prompt("own", (Message("user", "b"),)).label
    assert one.label != Prompt("own", one.opening, {"first": "{observation}!"}).label


ROW = (
    '{"id": "db_%d", "conversations": [{"from": "human", "loss": null, "value": "%s"}, '
    '{"from": "gpt", "loss": false, "value": "Fine."}, {"from": "human", "loss": null, '
    '"value": "Q"}, {"from": "gpt", "loss": true, "value": "A"}]}'
)


def test_published_wording_is_what_most_rows_begin_with(tmp_path: Path) -> None:
    rows = [ROW % (0, "Rare."), ROW % (1, "Do {it}."), ROW % (2, "Do {it}.")]
    (tmp_path / "db.jsonl").write_text("\n".join(rows), "utf-8")
    copy = str(tmp_path / "db.jsonl")
    spec = load_environment("database", prompt="published", agentinstruct=copy)
    dialogue = spec.make()
    assert isinstance(dialogue, DatabaseDialogue)
    turn, _ = dialogue.reset(options={"task_id": "database-test-0000"})
    assert [m.content for m in dialogue.opening()] == ["Do {it}.", "Fine."]
    assert not any(message.trained for message in dialogue.opening())
    assert turn == dialogue.env.problem("database-test-0000").observation
    (played,) = play(spec, ["database-test-0000"], OraclePolicy())
    assert (played.reward, played.prompt[:10]) == (1.0, "published:")
    dialogue.close()


def test_wording_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prompt: found 'theirs'"):
        load_environment("database", prompt="theirs").wording()
    with pytest.raises(ConfigError, match="name your AgentInstruct copy"):
        load_environment("database", prompt="published").wording()
    none = str(tmp_path / "none")
    with pytest.raises(SourceNotFoundError):
        load_environment("database", prompt="published", agentinstruct=none).wording()
    (tmp_path / "os.jsonl").write_text(ROW.replace("db_", "os_") % (0, "x"), "utf-8")
    other = str(tmp_path / "os.jsonl")
    with pytest.raises(DataError, match="found no row of task 'db'"):
        load_environment("database", prompt="published", agentinstruct=other).wording()


# Specs and registration


def test_a_spec_is_a_value_that_any_process_can_be_handed() -> None:
    spec = load_environment("database", backend="sqlite", data=None)
    assert spec == EnvironmentSpec("database", options={"backend": "sqlite"})
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.dialogue is DatabaseDialogue
    assert (spec.round_limit, spec.max_new_tokens) == (16, 128)


def test_unknown_names_are_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'databse' is unknown; known: .*database"):
        load_environment("databse")


def test_gymnasium_makes_it_after_registration() -> None:
    register_environments()
    register_environments()
    assert {f"agenttuning/{name}-v0" for name in HELD_IN} <= set(gymnasium.registry)
    environment = gymnasium.make("agenttuning/database-v0")
    _, first = environment.reset(seed=7)
    _, second = environment.reset(seed=7)
    assert first["task_id"] == second["task_id"]
    assert first["split"] == "train"
    _, third = environment.reset(options={"split": "dev", "index": 3})
    assert third["task_id"] == "database-dev-0003"
    with pytest.raises(ConfigError, match="index: found 100, expected 0 to 99"):
        environment.reset(options={"split": "dev", "index": 100})
    with pytest.raises(ConfigError, match="index: found 'a', expected"):
        environment.reset(options={"split": "dev", "index": "a"})
    with pytest.raises(ConfigError, match="reset: found 'taskid', expected task_id"):
        environment.reset(options={"taskid": "x"})
    environment.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasiums_own_check_passes() -> None:
    environment = DatabaseEnvironment()
    environment.action_space.seed(1)
    check_env(environment, skip_render_check=True, skip_close_check=True)
    environment.close()
    environment.close()


def test_importing_the_package_is_light() -> None:
    heavy = "{'gymnasium', 'torch', 'datasets', 'pymysql', 'yaml'}"
    code = f"import sys, dataset_builders.environments; print({heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


# Validation


class ForgetfulDatabase(DatabaseEnvironment):
    def oracle(self) -> Oracle:
        yield OracleStep("I do not know.", "Answer\n[]")


class ForgetfulDialogue(DatabaseDialogue):
    world: ClassVar[type[TextEnvironment]] = ForgetfulDatabase

    @classmethod
    def own_prompt(cls) -> Prompt:
        return DatabaseDialogue.own_prompt()


class BreakableDatabase(DatabaseEnvironment):
    def _act(self, action: str) -> StepResult:
        if action == self.idle_action:
            raise OSError("disk is gone")
        return super()._act(action)


class BreakableDialogue(ForgetfulDialogue):
    world: ClassVar[type[TextEnvironment]] = BreakableDatabase


def test_validation_passes_where_the_oracle_earns_one() -> None:
    result = validate(load_environment("database"), split="test", num_tasks=20)
    assert (result.ok, result.oracle, result.idle, result.num_tasks) == (True, 1.0, 0.0, 20)
    assert result.failures == {}


def test_validation_fails_where_the_oracle_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HELD_IN, "forgetful", f"{__name__}:ForgetfulDialogue")
    result = validate(EnvironmentSpec("forgetful"), num_tasks=3)
    assert (result.ok, result.oracle) == (False, 0.0)
    assert list(result.failures.values()) == ["answered"] * 3


class SystemDialogue(DatabaseDialogue):
    """Begins with a system message, and trims as was done before: without the user's."""

    @classmethod
    def own_prompt(cls) -> Prompt:
        return replace(DatabaseDialogue.own_prompt(), opening=(Message("system", "Use SQL."),))

    def opening(self) -> tuple[Message, ...]:
        return self.prompt.opening


class LosingDialogue(SystemDialogue):
    def trim(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        shown = super().trim(messages)
        return shown if len(shown) == len(messages) else (shown[0], *shown[2:])[:1]


def test_validation_looks_at_what_the_model_is_shown_in_a_long_dialogue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(HELD_IN, "system", f"{__name__}:SystemDialogue")
    monkeypatch.setitem(HELD_IN, "losing", f"{__name__}:LosingDialogue")
    assert validate(EnvironmentSpec("system"), num_tasks=2).ok
    result = validate(EnvironmentSpec("losing"), num_tasks=2)
    assert not result.ok
    assert result.failures == {
        "database-train-0000": "in a long dialogue: the model is shown no user message"
    }


def test_validation_fails_where_idling_breaks_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(HELD_IN, "breakable", f"{__name__}:BreakableDialogue")
    result = validate(EnvironmentSpec("breakable"), num_tasks=2)
    assert (result.ok, result.oracle, result.idle) == (False, 1.0, 0.0)
    assert list(result.failures.values()) == ["idle agent: OSError: disk is gone"] * 2
