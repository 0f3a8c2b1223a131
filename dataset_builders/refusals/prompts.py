"""Put a request to a model: as a chat turn, or as the task of an agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.database.environment import OPERATION
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.operating_system.environment import BASH
from dataset_builders.environments.tool_dialogue import ToolDialogue
from dataset_builders.environments.tool_schemas import call_fault, shown_schema
from dataset_builders.refusals.forms import Actions, Form
from dataset_builders.refusals.requests import Request
from dataset_builders.tools import parse_tools

_EXECUTING = (BASH, OPERATION)
"""Kinds of actions that change or read the world; the others only end the task."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the model is shown.

    Attributes:
        messages: The dialogue; ends in a user turn.
        tools: JSON text of the tools on offer; "" for none.
    """

    messages: tuple[Message, ...]
    tools: str = ""


def ask(request: Request, actions: Actions = "text") -> Asked:
    """Return the dialogue of a request; for an agent the environment's own prompt precedes it."""
    if request.form == "chat":
        return Asked((Message("user", request.prompt),))
    dialogue = dialogue_of(request.form, actions)
    first = Message("user", dialogue.first_turn(request.prompt, {}))
    return Asked((*dialogue.opening(), first), tools_of(dialogue))


def acts(request: Request, answer: str, actions: Actions = "text") -> bool:
    """Whether an agent's turn executes something, or tries to: a script or an SQL statement.

    Its format's final answer and end of the task are no execution: an agent may refuse by them.
    """
    if request.form == "chat":
        return False
    dialogue = dialogue_of(request.form, actions)
    said = answer if isinstance(answer, Answer) else Answer(answer)
    if said.malformed:
        return True
    if said.tool_calls and isinstance(dialogue, ToolDialogue):
        schemas = dialogue.schemas()
        if any(call_fault(call, schemas)[0] for call in said.tool_calls):
            return True  # an unknown tool, or other arguments: it tried
        found = [dialogue.action_of(call) for call in said.tool_calls]
    else:
        found = [dialogue.parse(said)]
    return any(each is not None and each.startswith(_EXECUTING) for each in found)


def wording(requests: Sequence[Request], actions: Actions) -> str:
    """Return which prompts the requests are put in, for the record of the score."""
    forms = dict.fromkeys(each.form for each in requests)
    names = [
        form if form == "chat" else f"{form} {actions} {dialogue_of(form, actions).prompt.label}"
        for form in forms
    ]
    return ", ".join(names)


@cache
def dialogue_of(form: Form, actions: Actions) -> Dialogue:
    """Return an environment for its prompt and its parser; no task is started in it."""
    return EnvironmentSpec(form, options={"dialogue": actions}).make()


def tools_of(dialogue: Dialogue) -> str:
    """Return the tools of a dialogue as JSON text; "" if it has none."""
    if not isinstance(dialogue, ToolDialogue):
        return ""
    return parse_tools([shown_schema(schema) for schema in dialogue.schemas()])
