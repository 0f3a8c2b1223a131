"""Tasksets of verifiers 0.4: their tools are called here, and their rewards score the episode.

`verifiers:ID` is an installed taskset package, or a module on the path. In verifiers the harness
sends the requests to the model; here the engine does, so that one episode serves collection and
evaluation. What needs verifiers' runtime is refused by name: tasks in a container, hooks and
rewards that take the runtime, judges, states. For those, run `vf-eval` and read its traces
(`formats.verifiers`).

The trace that rewards see holds the calls, their results and the final text; text beside a call is
not in it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, TypeVar

from dataset_builders.environments.adapters.naming import class_name
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.own_code import guarded
from dataset_builders.environments.tool_environment import ToolEnvironment
from dataset_builders.environments.tool_world import tool_dialogue
from dataset_builders.errors import EnvironmentFailureError
from dataset_builders.extras import needs_extra

EXTRA = "verifiers"
_T = TypeVar("_T")
_TENTHS: dict[str, tuple[int, ...]] = {"train": tuple(range(8)), "dev": (8,), "test": (9,)}
"""Last digits of the numbers of a split's tasks: a taskset has one stream of tasks."""


class TasksetEnvironment(ToolEnvironment):
    """A taskset of verifiers.

    Args:
        size: Tasks to take from the taskset's stream, in its order.
        config: Settings of the taskset, as `--env.taskset.NAME` sets them.

    Attributes:
        taskset: Its id.
    """

    taskset: ClassVar[str]

    def __init__(self, size: int = 500, config: Mapping[str, Any] | None = None) -> None:
        from verifiers.v1.utils import loaders

        given = loaders.taskset_config_type(self.taskset)(id=self.taskset, **(config or {}))
        self._taskset = loaders.load_taskset(given)
        self._all = list(islice(self._taskset, size))
        self._loop: asyncio.Runner | None = None
        self._task: Any = None
        self._trace: Any = None
        self._tools: dict[str, tuple[Any, Any]] = {}

    def tasks(self, split: str) -> Sequence[Mapping[str, Any]]:
        """Return the tasks whose number ends in the split's digits."""
        digits = _TENTHS.get(split, ())
        return [
            {"id": str(number), "hash": task.hash, "number": number}
            for number, task in enumerate(self._all)
            if number % 10 in digits
        ]

    def reset(self, task: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
        """Start a task with new servers of its tools; returns its prompts."""
        self._task = self._all[task["number"]]
        self._refuse_runtimes()
        self._trace = _empty_trace(self._task)
        self._tools = self._run(self._serve())
        return [self._add(message) for message in _prompts(self._task.data)]

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The tools of the task's servers, with their prefixes."""
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": tool.description or "",
                    "parameters": tool.input_schema,
                },
            }
            for name, (_, tool) in self._tools.items()
        ]

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call a tool of a server; its error is its result, as over the protocol."""
        from verifiers.v1.types import AssistantMessage, ToolCall, ToolMessage

        server, tool = self._tools[name]
        number = f"call_{len(self._trace.nodes)}"
        called = ToolCall(id=number, name=name, arguments=json.dumps(arguments))
        self._append(AssistantMessage(tool_calls=[called]), sampled=True)
        try:
            result = self._run(server.call_tool(tool.name, arguments))
            text = "\n".join(getattr(part, "text", "") for part in result.content)
        except Exception as error:
            text = " ".join(str(error).split())[:1000]
        self._append(ToolMessage(tool_call_id=number, content=text, name=name))
        return text

    def respond(self, text: str) -> str | None:
        """Store the final text; the episode ends."""
        from verifiers.v1.types import AssistantMessage

        self._append(AssistantMessage(content=text), sampled=True)
        reply: str | None = None
        return reply

    def score(self) -> float:
        """Return the sum of the task's weighted rewards."""
        self._trace.stop("agent_completed")
        self._trace.ok = True
        self._run(self._task.score(self._trace))
        return float(self._trace.reward)

    def close(self) -> None:
        """Close the event loop of the episode."""
        if self._loop is not None:
            self._loop.close()
        self._loop = None

    def _run(self, what: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            self._loop = asyncio.Runner()
        return self._loop.run(what)

    def _add(self, message: Any) -> dict[str, str]:
        self._append(message)
        if not isinstance(message.content, str):
            raise EnvironmentFailureError(f"verifiers:{self.taskset}: the prompt is not text alone")
        return {"role": message.role, "content": message.content}

    def _append(self, message: Any, *, sampled: bool = False) -> None:
        from verifiers.v1.graph import MessageNode

        nodes = self._trace.nodes
        parent = len(nodes) - 1 if nodes else None
        nodes.append(MessageNode(parent=parent, message=message, sampled=sampled))

    async def _serve(self) -> dict[str, tuple[Any, Any]]:
        """Return the server and the tool by the tool's full name."""
        from mcp.server.mcpserver import MCPServer

        found: dict[str, tuple[Any, Any]] = {}
        task = self._task
        toolsets = [
            *type(task).toolsets(task.config),
            *type(self._taskset).toolsets(self._taskset.config),
        ]
        for toolset in toolsets:
            await toolset.setup()
            await toolset.setup_task(task.data)
            server: Any = MCPServer(toolset.server_name or type(toolset).__name__)
            toolset.register(server)
            for tool in await server.list_tools():
                prefix = f"{toolset.server_name}_" if toolset.server_name else ""
                found[prefix + tool.name] = server, tool
        return found

    def _refuse_runtimes(self) -> None:
        """Refuse a task that needs the runtime of verifiers.

        Raises:
            EnvironmentFailureError: It does.
        """
        from verifiers.v1.state import State, state_cls
        from verifiers.v1.task import Task

        kind = type(self._task)
        needs = ["a container"] if kind.NEEDS_CONTAINER or self._task.data.image else []
        hooks = ("setup", "finalize")
        needs += [f"its hook {n}" for n in hooks if getattr(kind, n) is not getattr(Task, n)]
        needs += [f"its reward {name}" for name in _with_runtime(self._task.hooks("reward"))]
        needs += ["a judge"] if self._task.plugged_judges() else []
        needs += ["a state"] if state_cls(kind) is not State else []
        if needs:
            raise EnvironmentFailureError(
                f"verifiers:{self.taskset}: found {', '.join(needs)}, which needs verifiers' own "
                "runtime: run vf-eval, and read its traces.jsonl as a source"
            )


def _with_runtime(functions: Iterable[Any]) -> list[str]:
    """Names of the functions that require the argument `runtime`."""
    required = inspect.Parameter.empty
    names: list[str] = []
    for function in functions:
        found = inspect.signature(function).parameters.get("runtime")
        if found is not None and found.default is required:
            names.append(function.__name__)
    return names


def _empty_trace(task: Any) -> Any:
    from verifiers.v1.configs.agent import WireAgentConfig
    from verifiers.v1.trace import AgentInfo, Trace, TraceTask

    about = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    return Trace(task=about, agent=AgentInfo(config=WireAgentConfig()))


def _prompts(data: Any) -> list[Any]:
    from verifiers.v1.types import SystemMessage, UserMessage

    if data.prompt is None:
        raise EnvironmentFailureError(
            "verifiers: the task has no prompt: its user begins, who is not played"
        )
    turns = [UserMessage(content=data.prompt)] if isinstance(data.prompt, str) else [*data.prompt]
    return [SystemMessage(content=data.system_prompt), *turns] if data.system_prompt else turns


def dialogue_class(name: str) -> type[Dialogue]:
    """Return the dialogue of a taskset.

    Raises:
        ConfigError: There is no such taskset.
        MissingExtraError: The package is not installed, or another release of it.
    """
    with needs_extra(EXTRA):
        from verifiers.v1.utils import loaders
    place = f"verifiers:{name}"
    found = guarded(place, "looking it up", lambda: loaders.taskset_class(name))
    members = {
        "__module__": TasksetEnvironment.__module__,
        "__doc__": found.__doc__,
        "taskset": name,
        "name": class_name(place),
    }
    made: type[TasksetEnvironment] = type(class_name(place), (TasksetEnvironment,), members)
    return tool_dialogue(made, place)
