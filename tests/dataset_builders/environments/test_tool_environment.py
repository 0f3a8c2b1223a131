"""Environments of four methods: what a team writes, played as tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from dataset_builders import ToolEnvironment, tool
from dataset_builders.endpoints.answer import Answer
from dataset_builders.environments import load_environment
from dataset_builders.environments.tool_functions import function_schema, tools_of
from dataset_builders.environments.tool_schemas import check_schemas
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from dataset_builders.rollouts.validation import validate
from dataset_builders.tools import ToolCall
from tests.support.own_environments import DESK, write_desk


def played(place: str, turns: list[Any], task: str = "desk-train-a", **options: Any) -> Trajectory:
    spec = load_environment(place, **options)
    (trajectory,) = play(spec, [task], ScriptedPolicy(turns))
    return trajectory


# Schemas


class Shop(ToolEnvironment):
    """For schemas only."""

    def tasks(self, split: str) -> list[dict[str, Any]]:
        return []

    def reset(self, task: Any) -> list[dict[str, str]]:
        return []

    def score(self) -> float:
        return 0.0

    @tool
    def order(
        self, item: str, size: Literal["s", "m"], count: int = 1, notes: list[str] | None = None
    ) -> str:
        """Order an item.

        It is shipped at once.

        Args:
            item: Name of the item,
                as in the catalogue.
            size (str): Its size.
            count: How many.

        Returns:
            The order's number.
        """
        return ""


def test_a_schema_is_made_of_hints_and_docstring() -> None:
    (method,) = tools_of(Shop)
    schema = function_schema(method)
    check_schemas([schema], "shop")
    assert schema == {
        "type": "function",
        "function": {
            "name": "order",
            "description": "Order an item. It is shipped at once.",
            "parameters": {
                "type": "object",
                "additionalProperties": False,
                "required": ["item", "size"],
                "properties": {
                    "item": {
                        "type": "string",
                        "description": "Name of the item, as in the catalogue.",
                    },
                    "size": {"type": "string", "enum": ["s", "m"], "description": "Its size."},
                    "count": {"type": "integer", "default": 1, "description": "How many."},
                    "notes": {
                        "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
                        "default": None,
                    },
                },
            },
        },
    }


def test_the_schema_agrees_with_that_of_transformers() -> None:
    chat = pytest.importorskip("transformers.utils.chat_template_utils")

    def order(item: str, size: Literal["s", "m"], count: int = 1) -> str:
        """Order an item.

        Args:
            item: Name of the item.
            size: Its size.
            count: How many.
        """
        return ""

    def bound(self: object, item: str, size: Literal["s", "m"], count: int = 1) -> str:
        return ""

    bound.__doc__, bound.__name__ = order.__doc__, order.__name__
    ours, theirs = function_schema(bound), chat.get_json_schema(order)
    parameters = ours["function"]["parameters"]
    assert parameters.pop("additionalProperties") is False
    assert parameters["properties"]["count"].pop("default") == 1
    theirs["function"]["parameters"]["properties"]["size"].setdefault("type", "string")
    theirs["function"].pop("return", None)
    assert ours == theirs


def _no_text(self: Any, a: int) -> str: ...
def _no_hint(self: Any, a) -> str:  # type: ignore[no-untyped-def]
    """Do it."""


def _star(self: Any, *a: int) -> str:
    """Do it."""


def _thing(self: Any, a: Shop) -> str:
    """Do it."""


def _gone(self: Any, a: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Do it."""


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (_no_text, "tool _no_text: found no docstring"),
        (_no_hint, "tool _no_hint: parameter 'a': found no type hint"),
        (_star, "tool _star: parameter 'a': found a variadic positional one"),
        (_thing, "tool _thing: no JSON Schema: "),
        (_gone, "tool _gone: no JSON Schema: "),
    ],
)
def test_a_method_that_cannot_be_a_tool_is_one_line(
    method: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        function_schema(method)
    assert "\n" not in str(caught.value)


# Playing


def test_the_oracle_plays_calls_and_a_final_text(tmp_path: Path) -> None:
    spec = load_environment(write_desk(tmp_path))
    assert (spec.name, spec.round_limit, spec.max_new_tokens) == ("desk", 4, 512)
    assert spec.task_ids("train") == ("desk-train-a", "desk-train-b")
    assert spec.task_ids("dev") == ()
    spec.check_splits()
    (done,) = play(spec, ["desk-train-a"], OraclePolicy())
    assert (done.reward, done.exit_reason, done.error) == (1.0, "answered", "")
    assert [m.role for m in done.messages] == [
        *("system", "user", "assistant", "tool", "assistant"),
    ]
    call = done.messages[2].tool_calls[0]
    assert (call.name, json.loads(call.arguments)) == ("pay", {"amount": 3})
    assert done.messages[3].content == "Paid 3."
    assert [tool["function"]["name"] for tool in json.loads(done.tools)] == ["pay", "look"]
    result = validate(spec, num_tasks=2)
    assert result.ok, result.failures


def test_several_calls_in_a_turn_and_options(tmp_path: Path) -> None:
    from dataset_builders.endpoints.reply import Reply
    from dataset_builders.rollouts.policy import Policy, TurnRequest

    class Caller(Policy):
        async def next_turn(self, request: TurnRequest) -> Reply:
            pays = tuple(ToolCall("pay", json.dumps({"amount": n})) for n in (1, 4))
            wrong = (ToolCall("pay", '{"amount": "2"}'), ToolCall("steal", "{}"))
            return Reply("", tool_calls=(*pays, *wrong)) if request.round == 0 else Reply("Bye.")

    spec = load_environment(write_desk(tmp_path), price=5)
    (done,) = play(spec, ["desk-train-b"], Caller())
    results = [m.content for m in done.messages if m.role == "tool"]
    assert results[:2] == ["Paid 1.", "Paid 5."]
    assert "invalid arguments of pay: amount: '2' is not of type 'integer'" in results[2]
    assert "there is no tool named 'steal'" in results[3]
    assert (done.reward, done.num_rounds, done.valid_rounds) == (1.0, 2, 1)


def test_a_user_answers_and_a_state_ends_it(tmp_path: Path) -> None:
    talks = (
        "    def respond(self, text):\n        return None if 'bye' in text else 'Go on.'\n\n"
        "    @property\n    def finished(self):\n        return self.paid > 9\n\n    def score("
    )
    place = write_desk(tmp_path, "    def score(", talks)
    done = played(place, ["Hello.", "bye"])
    roles = [(m.role, m.content) for m in done.messages[2:]]
    assert roles == [("assistant", "Hello."), ("user", "Go on."), ("assistant", "bye")]
    assert (done.exit_reason, done.reward) == ("answered", 0.0)
    done = played(place, ["Hello."])
    assert (done.exit_reason, done.reward, done.num_rounds) == ("round_limit", 0.0, 4)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('return f"Paid {self.paid}."', "return 3", "tool pay: returned int, expected text"),
        ('return f"Paid {self.paid}."', "raise KeyError('x')", r"KeyError: 'x' \(desk.py:3\d\)"),
        ("return float(self.paid == self.price)", "return 2", "score: found 2, expected 0 to 1"),
        ("return float(self.paid == self.price)", "return None", "score: found None, expected"),
        ("return float(self.paid == self.price)", "return 1 / 0", "ZeroDivisionError"),
        ("return [system, user]", "return []", "reset: found no message, expected a list"),
        ("return [system, user]", "return 'Hi'", "reset: found str, expected a list of messages"),
        ("return [system, user]", "return [user, system]", "reset: found system at the end"),
        ("return [system, user]", "return [{'role': 'user'}]", "reset: message 0: found {'role'"),
        ("return [system, user]", "raise OSError('no disk')", "OSError: no disk"),
        (
            "return [system, user]",
            "return [system, user, {'role': 'assistant', 'content': '', 'tool_calls': []}, user]",
            "reset: message 2: found tool_calls, expected role and content only",
        ),
        ('yield "pay", {"amount": self.price}', "yield 3", "solution: found 3, expected text"),
        ("    def solution(", "    def solve(", "desk: has no solution"),
    ],
)  # fmt: skip
def test_what_breaks_is_an_error_of_the_task(
    tmp_path: Path, old: str, new: str, error: str
) -> None:
    assert DESK.count(old) == 1
    inline = DESK.replace(old, new).replace("round_limit", 'isolation = "inline"; round_limit')
    if "desk.py" in error:  # The place is named by the process it ran in.
        inline = DESK.replace(old, new)
    (tmp_path / "desk.py").write_text(inline)
    spec = load_environment(f"{tmp_path}/desk.py:Desk")
    (done,) = play(spec, ["desk-train-a"], OraclePolicy())
    assert (done.exit_reason, done.reward) == ("environment_error", 0.0)
    assert re.search(error.replace("{", r"\{"), done.error), done.error


def test_a_whole_float_reaches_an_integer_parameter_as_integer(tmp_path: Path) -> None:
    turn = Answer("", tool_calls=(ToolCall("pay", '{"amount": 3.0}'),))
    done = played(write_desk(tmp_path), [turn, "Done."])
    assert [m.content for m in done.messages if m.role == "tool"] == ["Paid 3."]
    assert done.reward == 1.0


@pytest.mark.parametrize("said", ["", " \n"])
def test_an_empty_turn_is_answered_and_not_trained_on(tmp_path: Path, said: str) -> None:
    pay = Answer("", tool_calls=(ToolCall("pay", '{"amount": 3}'),))
    turns = [Answer(said, reasoning="I pay."), pay, "Done."]
    done = played(write_desk(tmp_path), turns)
    spoken = [(m.reasoning, m.trained) for m in done.messages if m.role == "assistant"]
    assert spoken == [("I pay.", False), (None, True), (None, True)]
    assert done.messages[3].content == "Error: this turn is empty. Call a tool or write an answer."
    assert (done.reward, done.valid_rounds, done.num_rounds) == (1.0, 2, 3)


def test_an_episode_that_changes_its_task_leaves_the_next_one_alone(tmp_path: Path) -> None:
    place = write_desk(
        tmp_path, "return [system, user]", "task['price'] += 1\n        return [system, user]"
    )
    dialogue = load_environment(place).make()
    first, _ = dialogue.reset(options={"task_id": "desk-train-a"})
    again, _ = dialogue.reset(options={"task_id": "desk-train-a"})
    assert first == again == "3, please."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    def score(", "    def scores(", "lacks score"),
        ("    def reset(", "    def start(", "lacks reset"),
        ('name = "desk"', 'name = "webshop"', "'webshop', which is taken"),
        ("amount: int", "amount", "tool Desk.pay: parameter 'amount': found no type hint"),
        ('"""Pay an amount."""', "", "tool Desk.pay: found no docstring"),
        ("    @tool\n    def look", "    tools = []\n    def look", "has no tools: decorate"),
        ("    @tool\n    def look", "    tools = [{}]\n    def look", "tool 0: found {}"),
        (
            "    @tool\n    def look",
            "    tools = [{'function': {'name': 'a b'}}]\n    def look",
            "tool 0: name: found 'a b', expected what endpoints accept",
        ),
        (
            "    @tool\n    def look",
            "    tools = [{'function': {'name': 'fly'}}]\n    def look",
            "tool fly: found neither a method fly nor `call`",
        ),
        (
            "    @tool\n    def look",
            "    tools = [{'function': {'name': 'look', 'parameters': {'type': 'object', "
            "'properties': {'x': {'type': 'txt'}}}}}]\n    def look",
            "tool look: parameters: not a JSON Schema",
        ),
    ],
)  # fmt: skip
def test_a_class_that_is_incomplete_is_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    place = write_desk(tmp_path, old, new)
    with pytest.raises(ConfigError) as caught:
        load_environment(place)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("[{'id': 'a'}, {'id': 'a', 'x': 1}]", "tasks('train'): id 'a' is there twice"),
        ("[{'x': 1}]", "tasks('train'): task 0: id: found None, expected a text"),
        ("[{'id': 3}]", "task 0: id: found 3, expected a text"),
        ("[{'id': 'a\\nb'}]", "task 0: id: found 'a\\nb', expected a text"),
        ("['a']", "task 0: found 'a', expected a mapping"),
        ("'a'", "found str, expected a sequence of tasks"),
        ("1 / 0", "Desk: tasks raised ZeroDivisionError: division by zero (desk.py:"),
        ("[{'id': split}, {'id': 'x'}]", "and desk-dev-x are one task by their id 'x'"),
        ("[{'id': split, 'q': 3}]", "and desk-dev-dev are one task by their content"),
    ],
)
def test_tasks_are_checked(tmp_path: Path, tasks: str, message: str) -> None:
    spec = load_environment(write_desk(tmp_path, "return TASKS.get(split, [])", f"return {tasks}"))
    with pytest.raises((ConfigError, DataError)) as caught:
        spec.check_splits()
    assert message in str(caught.value)


def test_a_split_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    place = write_desk(tmp_path, "return TASKS.get(split, [])", "return TASKS[split]")
    load_environment(place).check_splits()


def test_a_constructor_that_raises_is_one_line(tmp_path: Path) -> None:
    place = write_desk(tmp_path, "self.fixed = price", "self.fixed = 1 / price")
    with pytest.raises(ConfigError, match=r"Desk: __init__ raised ZeroDivisionError: .*desk.py:1"):
        load_environment(place, price=0).task_ids("train")
    with pytest.raises(ConfigError, match="option 'prize' is unknown; known: price; did you mean"):
        load_environment(place, prize=0).task_ids("train")


def test_the_name_is_the_classs_in_snake_case(tmp_path: Path) -> None:
    text = DESK.replace('    name = "desk"\n', "").replace("class Desk(", "class OrderDesk2(")
    (tmp_path / "desk.py").write_text(text)
    assert load_environment(f"{tmp_path}/desk.py:OrderDesk2").name == "order_desk2"
