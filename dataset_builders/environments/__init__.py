"""Held-in environments, whose training split generates training data.

They belong to the data layer because AgentInstruct is made with them: a task is played, the
environment's own metric rewards the trajectory, and the rewarded ones become conversations
(AgentTuning, arXiv 2310.12823, section 2). Evaluators use the same classes on the evaluation
splits. Held-out environments never generate data and therefore do not belong here. Importing this
package loads no environment and registers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, get_type_hints

from dataset_builders.environments.class_checks import RESERVED, check_splits, checked_ids
from dataset_builders.environments.own_code import guarded
from dataset_builders.environments.references import (
    declared,
    is_reference,
    load_dialogue,
    portable,
    resolve,
)
from dataset_builders.errors import ConfigError
from dataset_builders.settings import options as closed_options
from dataset_builders.settings import read_settings

if TYPE_CHECKING:
    from dataset_builders.environments.base import Isolation, TextEnvironment
    from dataset_builders.environments.dialogue import Dialogue
    from dataset_builders.environments.prompts import Prompt

HELD_IN: dict[str, str] = {
    "alfworld": "dataset_builders.environments.alfworld.dialogue:AlfworldDialogue",
    "database": "dataset_builders.environments.database.dialogue:DatabaseDialogue",
    "knowledge_graph": "dataset_builders.environments.knowledge_graph.dialogue:GraphDialogue",
    "mind2web": "dataset_builders.environments.mind2web.dialogue:Mind2WebDialogue",
    "os": "dataset_builders.environments.operating_system.dialogue:OperatingSystemDialogue",
    "webshop": "dataset_builders.environments.webshop.dialogue:WebShopDialogue",
}
"""Environment name to "module:Class" of its dialogue class, which names the environment class."""


TOOLS = "tools"
"""Value of the option `dialogue` for actions as native tool calls."""


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """Which environment to play, and how; a picklable value.

    Attributes:
        name: A key of `HELD_IN`, or the environment's own name if `place` is given.
        prompt: "own" or "published".
        agentinstruct: File, folder or hub id of the AgentInstruct copy with the published prompts.
        options: Arguments of the environment's class, such as `data`.
        place: "module:Class" or "/path/file.py:Class" of a dialogue that is not in `HELD_IN`.
        prompt_suffix: Text that is appended to the prompt; see `prompts.with_suffix`.
    """

    name: str
    prompt: str = "own"
    agentinstruct: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""
    prompt_suffix: str = ""

    @property
    def dialogue(self) -> type[Dialogue]:
        """The environment's dialogue class; its form with tools if the option `dialogue` is so."""
        if self.is_own:
            return load_dialogue(self.place)
        dialogue = _load(self.place or HELD_IN[self.name])
        if self.options.get("dialogue") == TOOLS and dialogue.tool_form:
            return _load(dialogue.tool_form)
        return dialogue

    @property
    def is_own(self) -> bool:
        """Whether it is none of the paper's: found by a reference."""
        return bool(self.place) and self.name not in RESERVED

    @property
    def reference(self) -> str:
        """How records name it: its name, or its reference without the folder of its file."""
        return portable(self.place) if self.is_own else self.name

    @property
    def task(self) -> str:
        """AgentInstruct's name of the task, such as "db"; an own environment's name."""
        return self.name if self.is_own else self.dialogue.agentinstruct_task

    @property
    def options_model(self) -> type:
        """Settings class of the options: the arguments of the environment's class."""
        world: Any = self.dialogue.world  # mypy takes a class of Gymnasium for unhashable
        return _options_model(world)

    @property
    def max_new_tokens(self) -> int:
        """Maximum tokens of an assistant turn."""
        return self.dialogue.max_new_tokens

    @property
    def round_limit(self) -> int:
        """Maximum assistant turns of an episode."""
        return self.dialogue.round_limit

    def world(self) -> TextEnvironment:
        """Create the environment without its dialogue.

        Raises:
            ConfigError: It has no such option, or a value cannot be.
        """
        self.check_options()
        make = partial(self.dialogue.world, **self.options)
        return guarded(self.reference, "__init__", make) if self.is_own else make()

    @property
    def as_messages(self) -> bool:
        """Whether its rows have the `messages` format: AgentInstruct's has no tools or system."""
        return self.dialogue.offers_tools or self.is_own

    def isolation(self, world: TextEnvironment) -> Isolation:
        """Where a world runs: an own one in a process of its own, unless it says otherwise."""
        from dataset_builders.environments.base import TextEnvironment

        owners = (world, *type(world).__mro__)
        says = next(each for each in owners if "isolation" in vars(each))
        return "process" if self.is_own and says is TextEnvironment else world.isolation

    def check_options(self) -> None:
        """Check names and types of the options; starts nothing.

        Raises:
            ConfigError: An option is unknown, or of another type.
        """
        read_settings(self.options_model, self.options, self.name)

    def wording(self) -> Prompt:
        """Read the prompt template.

        Raises:
            ConfigError: The choice of prompt template is invalid.
            SourceNotFoundError: The AgentInstruct copy is not there.
            DataError: The copy holds no rows of this task.
        """
        return replace(self._template(), suffix=self.prompt_suffix)

    def _template(self) -> Prompt:
        from dataset_builders.environments import prompts

        prompts.check_prompt(self.prompt, self.agentinstruct)
        if self.prompt == prompts.OWN or self.agentinstruct is None:
            return self.dialogue.own_prompt()
        cls = self.dialogue
        if cls.offers_tools:
            raise ConfigError(
                f"{self.name}: prompt: published: AgentInstruct has no tool calls; expected own, "
                "or the option dialogue: text"
            )
        return prompts.published_prompt(
            cls.agentinstruct_task, self.agentinstruct, cls.published_pieces
        )

    def make(self, wording: Prompt | None = None, *, isolate: bool = False) -> Dialogue:
        """Create the environment as a dialogue.

        Args:
            wording: The prompt template, if it has been read already.
            isolate: Run an environment whose `isolation` is "process" in its own process.
        """
        prompt, world = wording or self.wording(), self.world()
        if isolate and self.isolation(world) == "process":
            from dataset_builders.environments.isolated import IsolatedDialogue

            return IsolatedDialogue(self, prompt, time_limit=self.dialogue.call_limit)
        return self.dialogue(world, prompt)

    def stand_in(self) -> str:
        """Name of the placeholder data, or ""; see `TextEnvironment.stand_in`."""
        return self.dialogue.world.stand_in(self.options.get("data"))

    def check_real(self) -> None:
        """Refuse to generate training data from placeholder data.

        Raises:
            ConfigError: The data is a placeholder, and the option `made_up` is not set.
        """
        if (found := self.stand_in()) and self.options.get("made_up") is not True:
            page = self.name.replace("_", "-")
            raise ConfigError(
                f"{self.name}: found only {found} (placeholder data): name the folder of its "
                f"data (`data`; docs/tasks/held-in/{page}.md), or set its option "
                "made_up to true"
            )

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return the task ids of a split; see `TextEnvironment.task_ids`."""
        with closing(self.world()) as world:
            return self._ids_of(world, split)

    def check_splits(self) -> None:
        """Check the tasks of an environment that is not the paper's; see `check_splits`.

        Raises:
            DataError: Ids are wrong or repeated, or two splits share a task.
        """
        if self.is_own:
            with closing(self.world()) as world:  # One, as it may read its tasks from a file.
                check_splits(self.reference, world, partial(self._ids_of, world))

    def _ids_of(self, world: TextEnvironment, split: str) -> tuple[str, ...]:
        if not self.is_own:
            return world.task_ids(split)
        ids = guarded(self.reference, "task_ids", lambda: world.task_ids(split))
        return checked_ids(self.reference, f"{self.name}-{split}-", ids)


def load_environment(
    name: str,
    *,
    prompt: str = "own",
    agentinstruct: str | None = None,
    prompt_suffix: str = "",
    **options: Any,
) -> EnvironmentSpec:
    """Look up an environment by name.

    Args:
        name: A key of `HELD_IN`, such as "database", or a reference; see `references`.
        prompt: "own" for the built-in prompt template, "published" for AgentInstruct's.
        agentinstruct: File, folder or hub id of the user's AgentInstruct copy.
        prompt_suffix: Text that is appended to the prompt.
        options: Arguments of the environment's class; None selects the default.

    Raises:
        ConfigError: No environment has this name, and the message lists the known ones; or a
            reference leads to none.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if name in HELD_IN:
        return EnvironmentSpec(name, prompt, agentinstruct, given, "", prompt_suffix)
    if not is_reference(name):
        known = ", ".join([*sorted(HELD_IN), *sorted(declared())])
        raise ConfigError(
            f"environment {name!r} is unknown; known: {known}, module:Class, ./file.py:Class"
        )
    if prompt != "own":
        raise ConfigError(f"{name}: prompt: found {prompt!r}, expected 'own': it has no other")
    place = resolve(name)
    own = load_dialogue(place).world.name
    return EnvironmentSpec(own, prompt, agentinstruct, given, place, prompt_suffix)


def register_environments() -> None:
    """Register the environments with Gymnasium, as `agenttuning/<name>-v0`.

    May be called more than once.
    """
    import gymnasium

    for name in HELD_IN:
        identifier = f"agenttuning/{name}-v0"
        if identifier not in gymnasium.registry:
            gymnasium.register(identifier, entry_point=partial(_make_world, name))


def _make_world(name: str, **options: Any) -> TextEnvironment:
    return _load(HELD_IN[name]).world(**options)


@cache
def _options_model(world: Any) -> type:
    made = getattr(world, "environment_class", world)  # The class behind a `ToolWorld`.
    hints = get_type_hints(made.__init__)
    known = {n: each for n, each in signature(made).parameters.items() if n != "render_mode"}
    types = {name: hints.get(name, Any) for name in known}
    defaults = {n: each.default for n, each in known.items() if each.default is not each.empty}
    return closed_options(type("Options", (), {"__annotations__": types, **defaults}))


def _load(place: str) -> type[Dialogue]:
    module, _, attribute = place.partition(":")
    loaded: type[Dialogue] = getattr(import_module(module), attribute)
    return loaded
