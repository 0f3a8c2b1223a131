"""Play a `ToolEnvironment`: its world and its dialogue."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

from dataset_builders.conversation import ROLES, Message
from dataset_builders.environments.base import (
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.own_code import guarded
from dataset_builders.environments.prompts import OWN, Prompt
from dataset_builders.environments.tool_dialogue import ToolDialogue
from dataset_builders.environments.tool_environment import (
    Move,
    ToolEnvironment,
    environment_name,
    str_of,
)
from dataset_builders.environments.tool_functions import function_schema, tools_of
from dataset_builders.environments.tool_schemas import check_schemas
from dataset_builders.errors import ConfigError, DataError, EnvironmentFailureError
from dataset_builders.tools import ToolCall

ANSWERED = "answered"
FINISHED = "finished"


class ToolWorld(TextEnvironment):
    """The world of a `ToolEnvironment`: an action is the JSON text of a call, or of a turn's text.

    Attributes:
        environment_class: The environment's class; its object is made when it is first needed.
        opening: Messages before the user's request; valid after `reset`.
    """

    environment_class: ClassVar[type[ToolEnvironment]]
    idle_action: ClassVar[str] = json.dumps({"text": "I do nothing."})

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._environment: ToolEnvironment | None = None
        self._tasks: dict[str, dict[str, Mapping[str, Any]]] = {}
        self.opening: tuple[Message, ...] = ()

    def task_ids(self, split: str) -> tuple[str, ...]:
        """See `TextEnvironment.task_ids`."""
        return tuple(f"{self.name}-{split}-{task}" for task in self._tasks_of(split))

    def task_keys(self, task_id: str) -> tuple[str, ...]:
        """See `TextEnvironment.task_keys`: a task's own id, and what it consists of."""
        _, split, own_id = task_id.split("-", 2)
        content = {k: v for k, v in self._tasks_of(split)[own_id].items() if k != "id"}
        text = json.dumps(content, sort_keys=True, default=repr)
        return (f"id {own_id!r}", f"content {text}") if content else (f"id {own_id!r}",)

    def schemas(self) -> list[dict[str, Any]]:
        """Return the schemas of the running episode's tools."""
        return [dict(schema) for schema in self._object().tools]

    def oracle(self) -> Oracle:
        """See `TextEnvironment.oracle`."""
        moves = self._object().solution()
        seen: str | None = None
        while True:
            try:
                move = moves.send(seen) if hasattr(moves, "send") else next(moves)
            except StopIteration:
                return
            seen = yield OracleStep("", action_text(move))

    def _object(self) -> ToolEnvironment:
        if self._environment is None:
            cls, options = self.environment_class, self._options
            self._environment = guarded(cls.__qualname__, "__init__", lambda: cls(**options))
        return self._environment

    def _tasks_of(self, split: str) -> dict[str, Mapping[str, Any]]:
        if split not in self._tasks:
            environment = self._object()
            what = f"{self.environment_class.__qualname__}: tasks({split!r})"
            given = guarded(
                self.environment_class.__qualname__, "tasks", lambda: environment.tasks(split)
            )
            self._tasks[split] = _by_id(given, what)
        return self._tasks[split]

    def _begin(self, task_id: str) -> ResetResult:
        _, split, own_id = (*task_id.split("-", 2), "", "")[:3]
        tasks = self._tasks_of(split) if task_id.startswith(f"{self.name}-") else {}
        if own_id not in tasks:
            raise ConfigError(f"{self.name}: found no task {task_id!r}")
        # A copy: an episode may change its task, and the next one must begin as this one did.
        *opening, request = _messages(self._object().reset(deepcopy(tasks[own_id])))
        self.opening = tuple(opening)
        return ResetResult(request.content, request.content)

    def _act(self, action: str) -> StepResult:
        environment, move = self._object(), json.loads(action)
        if "text" in move:
            reply = environment.respond(move["text"])
            if reply is None:
                return StepResult("", ANSWERED, environment.score())
            said = str_of("respond", reply)
        else:
            name, arguments = move["name"], _with_integers(move, environment.tools)
            said = str_of(name, environment.call(name, arguments))
        if environment.finished:
            return StepResult(said, FINISHED, environment.score())
        return StepResult(said)

    def state_digest(self) -> str | None:
        """See `TextEnvironment.state_digest`."""
        return self._object().state_digest()

    def _end(self) -> None:
        if self._environment is not None:
            self._environment.close()


class PlayedDialogue(ToolDialogue):
    """The dialogue of a `ToolEnvironment`, which is shown to the model whole."""

    env: ToolWorld

    @classmethod
    def own_prompt(cls) -> Prompt:
        """Return an empty template: `reset` gives all messages."""
        return Prompt(OWN, ())

    def schemas(self) -> list[dict[str, Any]]:
        """See `ToolDialogue.schemas`."""
        return self.env.schemas()

    def action_of(self, call: ToolCall | str) -> str:
        """See `ToolDialogue.action_of`."""
        if isinstance(call, str):
            return action_text(str(call))
        return action_text((call.name, json.loads(call.arguments)))

    def call_of(self, action: str) -> ToolCall | str:
        """See `ToolDialogue.call_of`."""
        move = json.loads(action)
        if "text" in move:
            return str(move["text"])
        return ToolCall(move["name"], json.dumps(move["arguments"], ensure_ascii=False))

    def opening(self) -> tuple[Message, ...]:
        """See `Dialogue.opening`."""
        return self.env.opening

    def trim(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the whole dialogue."""
        return tuple(messages)


def tool_dialogue(cls: type[ToolEnvironment], place: str) -> type[PlayedDialogue]:
    """Return the dialogue class that plays an environment's class.

    Args:
        cls: The class.
        place: Its reference, for errors.

    Raises:
        ConfigError: It lacks a method, or has no tools or a wrong schema.
    """
    if missing := sorted(cls.__abstractmethods__):
        raise ConfigError(f"{place}: lacks {', '.join(missing)}")
    _check_tools(cls, place)
    world = type(
        f"{cls.__name__}World",
        (ToolWorld,),
        {
            "__module__": cls.__module__,
            "environment_class": cls,
            "name": environment_name(cls),
            "success_score": cls.success_score,
            "isolation": cls.isolation,
        },
    )
    taken = ("round_limit", "max_new_tokens", "held_out", "call_limit")
    members = {name: getattr(cls, name) for name in taken}
    members |= {"__module__": cls.__module__, "__doc__": cls.__doc__, "world": world}
    return type(f"{cls.__name__}Dialogue", (PlayedDialogue,), members)


def action_text(move: Move) -> str:
    """Return a move as an action of `ToolWorld`.

    Raises:
        EnvironmentFailureError: It is neither a text nor a name with arguments.
    """
    if isinstance(move, str):
        return json.dumps({"text": move}, ensure_ascii=False)
    try:
        name, arguments = move
        return json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise EnvironmentFailureError(
            f"solution: found {move!r:.80}, expected text, or a tool's name and its arguments"
        ) from error


def _check_tools(cls: type[ToolEnvironment], place: str) -> None:
    declared: Any = cls.tools
    if isinstance(declared, property) and declared is not ToolEnvironment.tools:
        return  # Known only when a task has begun; checked then.
    if isinstance(declared, property):
        declared = [function_schema(method) for method in tools_of(cls)]
    if not declared:
        raise ConfigError(f"{place}: has no tools: decorate methods with @tool, or set `tools`")
    check_schemas(declared, place)
    for schema in declared if cls.call is ToolEnvironment.call else ():
        name = schema["function"]["name"]
        if not callable(getattr(cls, name, None)):
            raise ConfigError(f"{place}: tool {name}: found neither a method {name} nor `call`")


def _with_integers(move: Mapping[str, Any], schemas: Sequence[Any]) -> dict[str, Any]:
    """Return a call's arguments, with 3 for 3.0 as an integer: JSON Schema takes both."""
    functions = (schema["function"] for schema in schemas)
    function: Mapping[str, Any] = next((f for f in functions if f["name"] == move["name"]), {})
    properties = (function.get("parameters") or {}).get("properties", {})
    return {
        key: int(value)
        if isinstance(value, float) and _type_of(properties.get(key)) == "integer"
        else value
        for key, value in move["arguments"].items()
    }


def _type_of(schema: object) -> object:
    return schema.get("type") if isinstance(schema, Mapping) else None


def _by_id(tasks: object, what: str) -> dict[str, Mapping[str, Any]]:
    if isinstance(tasks, str) or not isinstance(tasks, Sequence):
        raise DataError(f"{what}: found {type(tasks).__name__}, expected a sequence of tasks")
    for index, task in enumerate(tasks):
        if not isinstance(task, Mapping):
            raise DataError(f"{what}: task {index}: found {task!r:.60}, expected a mapping")
        own_id = task.get("id")
        if not isinstance(own_id, str) or not own_id.strip() or own_id != " ".join(own_id.split()):
            raise DataError(f"{what}: task {index}: id: found {own_id!r:.60}, expected a text")
    repeated = [own_id for own_id, n in Counter(task["id"] for task in tasks).items() if n > 1]
    if repeated:
        raise DataError(f"{what}: id {repeated[0]!r} is there twice, expected ids to be unique")
    return {task["id"]: task for task in tasks}


def _messages(given: object) -> Iterator[Message]:
    """Check the messages that `reset` returned."""
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not listed:
        found = type(given).__name__ if not isinstance(given, list) else "no message"
        raise EnvironmentFailureError(f"reset: found {found}, expected a list of messages")
    for index, message in enumerate(listed):
        role = message.get("role") if isinstance(message, Mapping) else None
        content = message.get("content") if isinstance(message, Mapping) else None
        if role not in ROLES or role == "tool" or not isinstance(content, str):
            raise EnvironmentFailureError(
                f"reset: message {index}: found {message!r:.80}, expected role system, user or "
                "assistant, and content as text"
            )
        if extra := sorted(set(message) - {"role", "content"}):
            raise EnvironmentFailureError(
                f"reset: message {index}: found {extra[0]}, expected role and content only"
            )
        if index == len(listed) - 1 and role != "user":
            raise EnvironmentFailureError(f"reset: found {role} at the end, expected user")
        yield Message(role, content)
