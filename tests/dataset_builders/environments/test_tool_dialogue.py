"""A conversation through tool calls: the protocol, what models do wrong, and the engine."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer, read_answer, replace_text
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.dialogue import ROUND_LIMIT
from dataset_builders.environments.history import MAX_SEGMENTS, trim_history
from dataset_builders.environments.isolated import IsolatedDialogue
from dataset_builders.environments.tool_schemas import check_schemas
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from dataset_builders.rollouts.validation import validate
from dataset_builders.tools import ToolCall
from tests.support.account import (
    ACCOUNT,
    CLOSE,
    PAY,
    TALKING,
    AccountDialogue,
    AccountEnvironment,
    account,
    call,
    calls,
    tool,
)

__all__ = ["account"]

pytestmark = pytest.mark.usefixtures("account")


def played(
    *turns: str | None, task: str = "a-train-1", spec: EnvironmentSpec = ACCOUNT
) -> Trajectory:
    (trajectory,) = play(spec, [task], ScriptedPolicy(turns))
    return trajectory


def test_a_call_and_its_result_are_messages_of_their_own() -> None:
    trajectory = played(calls(PAY, text="I pay."), calls(call("close", "mine")))
    assert trajectory.messages == (
        Message("system", "You keep accounts."),
        Message("user", "Pay in 1."),
        Message("assistant", "I pay.", True, (call("pay", "call_0_0", coins=1),)),
        Message("tool", "1 coins", tool_call_id="call_0_0", name="pay"),
        Message("assistant", "", True, (call("close", "mine"),)),
    )
    assert (trajectory.reward, trajectory.exit_reason) == (1.0, "closed")
    assert (trajectory.num_rounds, trajectory.valid_rounds) == (2, 2)
    assert [t["function"]["name"] for t in json.loads(trajectory.tools)] == ["pay", "look", "close"]
    assert trajectory.call_counts == {"calls": 2}


def test_tools_are_shown_as_servers_render_them() -> None:
    """Each with all fields in vLLM's order, so that its prompt is the training row's."""
    tools = json.loads(played(calls(PAY, CLOSE)).tools)
    assert [list(each) for each in tools] == [["type", "function"]] * 3
    assert [list(each["function"]) for each in tools] == [["name", "description", "parameters"]] * 3
    assert tools[1]["function"]["parameters"] == {"type": "object", "properties": {}}


def test_the_policy_is_offered_the_tools_and_sees_the_results() -> None:
    class Watching(ScriptedPolicy):
        seen: ClassVar[list[Any]] = []

        async def next_turn(self, request: Any) -> Any:
            self.seen.append((request.tools, [message.role for message in request.messages]))
            return await super().next_turn(request)

    (trajectory,) = play(ACCOUNT, ["a-train-1"], Watching([calls(PAY, PAY), calls(CLOSE)]))
    (first, shown), (_, later) = Watching.seen
    assert first == trajectory.tools != ""
    assert shown == ["system", "user"]
    assert later == ["system", "user", "assistant", "tool", "tool"]


def test_calls_of_one_turn_are_executed_in_order_and_ids_are_unique() -> None:
    ten = [call("pay", "same", coins=1)] * 3 + [call("look")] * 6 + [call("pay", coins=2)]
    trajectory = played(calls(*ten), calls(CLOSE), task="a-train-3")
    results = [message for message in trajectory.messages if message.role == "tool"]
    asked = trajectory.messages[2].tool_calls
    assert [m.content for m in results] == [f"{n} coins" for n in (1, 2, 3, *[3] * 6, 5)]
    assert [m.tool_call_id for m in results] == [each.id for each in asked]
    assert [each.id for each in asked][:3] == ["same", "call_0_1", "call_0_2"]
    assert len({each.id for each in asked}) == 10
    assert trajectory.reward == 0.0  # five coins, not three


def test_ids_that_a_model_made_up_stay_unique() -> None:
    made = (call("look", "call_0_1"), call("look"), call("look", "call_0_1"), call("look", "a"))
    trajectory = played(calls(*made), calls(CLOSE))
    ids = [each.id for each in trajectory.messages[2].tool_calls]
    assert ids == ["call_0_1", "call_0_1_", "call_0_2", "a"]
    results = [m.tool_call_id for m in trajectory.messages if m.role == "tool"]
    assert results[:4] == ids


def test_a_call_after_the_end_is_not_executed() -> None:
    trajectory = played(calls(PAY, CLOSE, PAY))
    last = [(message.role, message.content) for message in trajectory.messages[-3:]]
    assert last == [
        ("tool", "1 coins"),
        ("tool", ""),
        ("tool", "Not executed: the task had already ended."),
    ]
    assert trajectory.reward == 1.0
    assert trajectory.call_counts == {"calls": 3, "call_after_end": 1}


@pytest.mark.parametrize(
    ("made", "fault", "said"),
    [
        (call("fly"), "unknown_tool", "no tool named 'fly'. The tools are: pay, look, close."),
        (call("pay", coins="one"), "invalid_arguments", "coins: 'one' is not of type 'integer'"),
        (call("pay", coins=0), "invalid_arguments", "0 is less than the minimum of 1"),
        (call("pay"), "invalid_arguments", "'coins' is a required property"),
        (call("look", far=True), "invalid_arguments", "found far, expected none"),
    ],
)
def test_a_call_that_fits_no_schema_is_answered_and_not_executed(
    made: ToolCall, fault: str, said: str
) -> None:
    trajectory = played(calls(made, PAY), calls(CLOSE))
    wrong, right = trajectory.messages[3:5]
    assert said in wrong.content
    assert wrong.tool_call_id == "call_0_0"
    assert right.content == "1 coins"  # the other call of the turn is executed
    assert trajectory.call_counts == {"calls": 3, fault: 1}
    assert (trajectory.num_rounds, trajectory.valid_rounds) == (2, 1)
    assert trajectory.reward == 1.0


def test_a_turn_with_a_malformed_call_executes_nothing_and_is_not_trained_on() -> None:
    broken = '{"name": "pay", "arguments": {"coins": }}'
    turn = Answer("I pay.", tool_calls=(PAY,), malformed=(broken,), reasoning="Hm.")
    trajectory = played(turn, calls(PAY), calls(CLOSE))
    stored, told, again = trajectory.messages[2:5]
    assert stored == Message(
        "assistant",
        f'I pay.\n{{"name": "pay", "arguments": {{"coins": 1}}}}\n{broken}',
        reasoning="Hm.",
    )
    assert told.role == "user"
    assert broken in told.content
    assert again.tool_calls[0].id == "call_1_0"
    assert trajectory.call_counts == {"calls": 3, "malformed_call": 1}
    assert (trajectory.reward, trajectory.num_rounds, trajectory.valid_rounds) == (1.0, 3, 2)


def test_a_cut_turn_counts_unless_it_is_stored_without_loss() -> None:
    whole = Answer("I pay", tool_calls=(PAY,), cut=True)
    assert played(whole, calls(CLOSE)).cut_turns == 1
    broken = Answer("", malformed=('{"name": "pay", "argu',), cut=True)
    assert played(broken, calls(PAY), calls(CLOSE)).cut_turns == 0


def test_a_turn_without_a_call_is_asked_for_one() -> None:
    trajectory = played("I think about it.", "", calls(PAY), calls(CLOSE))
    assert trajectory.messages[3].content == "Error: this turn has no tool call. Call a tool."
    assert "this turn is empty" in trajectory.messages[5].content
    assert trajectory.call_counts == {"calls": 2, "no_call": 2}
    assert trajectory.reward == 1.0


def test_text_is_an_action_where_the_world_takes_it() -> None:
    trajectory = played(calls(PAY), "hello", "done", spec=TALKING)
    assert [message.role for message in trajectory.messages] == [
        *("user", "assistant", "tool"),
        *("assistant", "user", "assistant"),
    ]
    assert trajectory.messages[4].content == "1 coins"
    assert (trajectory.reward, trajectory.exit_reason) == (1.0, "closed")
    assert trajectory.valid_rounds == 2  # the world calls "hello" invalid


def test_the_round_limit_ends_the_episode_after_its_results() -> None:
    trajectory = played(calls(call("look")))
    assert trajectory.exit_reason == ROUND_LIMIT
    assert trajectory.num_rounds == 6
    assert trajectory.messages[-1].role == "tool"


@pytest.mark.parametrize("isolation", ["inline", "thread"])
def test_the_oracle_calls_tools_and_the_environment_is_valid(isolation: str) -> None:
    spec = EnvironmentSpec("account", options={"isolation": isolation})
    found = validate(spec, num_tasks=3)
    assert (found.oracle, found.idle, found.failures) == (1.0, 0.0, {})
    (trajectory,) = play(spec, ["a-train-2"], OraclePolicy())
    assert [len(m.tool_calls) for m in trajectory.messages if m.role == "assistant"] == [1, 1, 1]
    assert trajectory.messages[2].content == "I pay."


def test_a_process_of_its_own_plays_the_same() -> None:
    turns = [calls(PAY, call("fly")), Answer(malformed=("{",)), calls(CLOSE)]
    spec = EnvironmentSpec("account", place="tests.support.account:AccountDialogue")
    own = IsolatedDialogue(spec, spec.wording())
    try:
        own.reset(options={"task_id": "a-train-1"})
        assert own.tools() != ""
        there = [_step(own, turn) for turn in turns]
    finally:
        own.close()
    here_dialogue = AccountDialogue(AccountEnvironment(), AccountDialogue.own_prompt())
    here_dialogue.reset(options={"task_id": "a-train-1"})
    assert there == [_step(here_dialogue, turn) for turn in turns]


def _step(dialogue: Any, turn: Answer) -> tuple[Any, ...]:
    message = dialogue.assistant_message(turn)
    observation, *rest = dialogue.step(turn)
    return message, observation, *rest, dialogue.observation_messages(observation)


def test_an_answer_keeps_its_calls() -> None:
    answer = Answer("text", tool_calls=(PAY,), malformed=("{",), reasoning="r", cut=True)
    for copy in (
        pickle.loads(pickle.dumps(answer)),
        replace_text(answer, "text"),
        read_answer(answer),
    ):
        assert isinstance(copy, Answer)
        assert vars(copy) == vars(answer)
        assert copy == "text"


def test_results_stay_with_their_calls_in_a_trimmed_history() -> None:
    def messages() -> Iterator[Message]:
        yield Message("user", "Do it.")
        for number in range(6):
            made = call("look", f"{number}", far="x " * 400)
            yield Message("assistant", "", True, (made, made))
            yield Message("tool", "a " * 200, tool_call_id=f"{number}")
            yield Message("tool", "b " * 200, tool_call_id=f"{number}")

    dialogue = list(messages())
    shown = trim_history(dialogue)
    omitted = len(dialogue) - len(shown)
    assert shown[0].content == f"Do it.\n\n[NOTICE] {omitted} messages are omitted."
    assert [m.role for m in shown] == ["user"] + ["assistant", "tool", "tool"] * 2
    assert trim_history(dialogue, MAX_SEGMENTS * 3) == tuple(dialogue)


@pytest.mark.parametrize(
    ("schemas", "said"),
    [
        ([{"name": "pay"}], "tool 0: found .*, expected an object with `function`"),
        ([tool("pay me", None)], "tool 0: name: found 'pay me', expected what endpoints accept"),
        ([tool("pay", None), tool("pay", None)], "tool pay: found twice"),
        ([tool("pay", {"type": "array"})], "tool pay: parameters: .* JSON Schema of an object"),
        ([tool("pay", {"properties": 3})], "tool pay: parameters: not a JSON Schema"),
    ],
)
def test_schemas_are_checked(schemas: list[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"account: {said}"):
        check_schemas(schemas, "account")
