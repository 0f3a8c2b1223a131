"""A small account as an environment with tools, and the calls that tests make."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.environments import HELD_IN, EnvironmentSpec
from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.prompts import Prompt
from dataset_builders.environments.tool_dialogue import ToolDialogue
from dataset_builders.tools import ToolCall

TALKS = "talks"


class AccountEnvironment(TextEnvironment):
    """Task "a-train-N": pay in N coins one by one, then close the account or say "done"."""

    name: ClassVar[str] = "account"
    idle_action: ClassVar[str] = "look"

    def __init__(self, isolation: Isolation = "inline") -> None:
        super().__init__()
        self.isolation = isolation
        self.coins = self.wanted = 0

    def task_ids(self, split: str) -> tuple[str, ...]:
        return tuple(f"a-{split}-{number}" for number in (1, 2, 3))

    def oracle(self) -> Oracle:
        for number in range(self.wanted):
            seen = yield OracleStep("I pay.", "pay 1")
            assert seen == f"{number + 1} coins"
        yield OracleStep("That is all.", "close")

    def _begin(self, task_id: str) -> ResetResult:
        self.coins, self.wanted = 0, int(task_id.split("-")[2])
        return ResetResult(f"Pay in {self.wanted}.", f"Pay in {self.wanted}.")

    def _act(self, action: str) -> StepResult:
        kind, _, number = action.partition(" ")
        if kind == "pay":
            self.coins += int(number)
        if kind == "close" or action == "say done":
            return StepResult("", "closed", float(self.coins == self.wanted))
        return StepResult(f"{self.coins} coins", valid=kind != "say")


class AccountDialogue(ToolDialogue):
    """Tools `pay`, `look` and `close`; text is an action for the user only if `talks`."""

    world: ClassVar[type[TextEnvironment]] = AccountEnvironment
    agentinstruct_task: ClassVar[str] = "account"
    round_limit: ClassVar[int] = 6

    @classmethod
    def own_prompt(cls) -> Prompt:
        return Prompt("own", (Message("system", "You keep accounts."),))

    def schemas(self) -> list[dict[str, Any]]:
        coins = {"type": "integer", "minimum": 1}
        pay = {"type": "object", "properties": {"coins": coins}, "required": ["coins"]}
        return [tool("pay", pay), tool("look", None), tool("close", {"type": "object"})]

    def action_of(self, call: ToolCall | str) -> str | None:
        if isinstance(call, str):
            return f"say {call}" if TALKS in self.prompt.pieces else None
        coins = json.loads(call.arguments).get("coins")
        return call.name if coins is None else f"{call.name} {coins}"

    def call_of(self, action: str) -> ToolCall | str:
        kind, _, coins = action.partition(" ")
        return ToolCall(kind, json.dumps({"coins": int(coins)} if coins else {}))


class TalkingDialogue(AccountDialogue):
    @classmethod
    def own_prompt(cls) -> Prompt:
        return Prompt("own", (), {TALKS: ""})


def tool(name: str, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    function = {"name": name, "description": name} | (
        {} if parameters is None else {"parameters": parameters}
    )
    return {"type": "function", "function": function}


def call(name: str, id: str = "", **arguments: Any) -> ToolCall:
    return ToolCall(name, json.dumps(arguments), id)


def calls(*made: ToolCall, text: str = "") -> Answer:
    return Answer(text, tool_calls=made)


ACCOUNT = EnvironmentSpec("account")
TALKING = EnvironmentSpec("talking")
PAY, CLOSE = call("pay", coins=1), call("close")


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the environments "account" and "talking"."""
    monkeypatch.setitem(HELD_IN, "account", f"{__name__}:AccountDialogue")
    monkeypatch.setitem(HELD_IN, "talking", f"{__name__}:TalkingDialogue")
