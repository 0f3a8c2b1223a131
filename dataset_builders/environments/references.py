"""References to environments that are not part of this package.

A reference is `package.module:Class`, `./file.py:Class`, or the name of an entry point in the group
`agenttuning.environments`. It may stand wherever the name of a held-in environment may.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from importlib import import_module
from importlib.metadata import entry_points
from inspect import isclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from dataset_builders.environments.adapters import adapted, wrapped
from dataset_builders.errors import AgentTuningError, ConfigError
from dataset_builders.settings import suggestion
from dataset_builders.stdio import quiet_stdout

if TYPE_CHECKING:
    from dataset_builders.environments.dialogue import Dialogue

GROUP = "agenttuning.environments"
"""Group of the entry points, such as `support = "support_desk.environment:SupportDesk"`."""

RESERVED = frozenset(
    {
        *("alfworld", "webshop", "mind2web", "knowledge_graph", "os", "database"),
        *("science_world", "miniwob", "web_arena", "hotpot_qa", "rewoo", "card_game"),
        *("mmlu", "human_eval", "gsm8k", "mt_bench"),
        *("db", "kg", "general", "loss", "replay", "all"),
    }
)
"""Names of the paper's tasks, of AgentInstruct's and of other figures: taken."""

_FILE = ".py"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_T = TypeVar("_T")


def declared() -> dict[str, str]:
    """Return the references of installed packages, by the name of their entry point."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def is_reference(name: str) -> bool:
    """Whether a name is a reference; it need not exist."""
    return ":" in name or name in declared()


def is_relative_file(name: str) -> bool:
    """Whether a name is a reference to a file by a relative path."""
    target, colon, _ = name.rpartition(":")
    return bool(colon) and target.endswith(_FILE) and not Path(target).expanduser().is_absolute()


def resolve(reference: str, folder: str | Path = "") -> str:
    """Return a reference with an absolute path, or as "module:Class".

    Args:
        reference: See the module.
        folder: Folder that a relative path starts from; by default the working folder.
    """
    place = declared().get(reference, reference)
    target, _, name = place.rpartition(":")
    if not target.endswith(_FILE):
        return place
    return f"{Path(folder, Path(target).expanduser()).resolve()}:{name}"


def portable(place: str) -> str:
    """Return a resolved reference without the folder of its file, for records."""
    target, _, name = place.rpartition(":")
    return f"{Path(target).name}:{name}" if target.endswith(_FILE) else place


@cache
def load_dialogue(place: str) -> type[Dialogue]:
    """Import the dialogue class of a resolved reference, and check it.

    Raises:
        ConfigError: It cannot be imported, or is not an environment; in one line.
    """
    if (dialogue := adapted(place)) is not None:
        return dialogue
    target, colon, name = place.rpartition(":")
    if not colon or not target or not name:
        raise ConfigError(f"environment {place!r}: expected module:Class or ./file.py:Class")
    module = import_quietly(target)
    found = getattr(module, name, None)
    if found is None:
        classes = [each for each, value in vars(module).items() if isclass(value)]
        raise ConfigError(f"{target}: found no {name!r}{suggestion(name, classes, 0.5)}")
    if _is_gym(found):
        return wrapped(place, found)
    check_dialogue(place, found)
    checked: type[Dialogue] = found
    return checked


def _is_gym(found: Any) -> bool:
    """Whether a class is a Gymnasium environment, and neither a world nor a dialogue."""
    import gymnasium

    from dataset_builders.environments.base import TextEnvironment

    own = (TextEnvironment, gymnasium.Wrapper)
    return isclass(found) and issubclass(found, gymnasium.Env) and not issubclass(found, own)


def import_quietly(target: str) -> ModuleType:
    """Import a module by its name or file; what it prints is discarded.

    Raises:
        ConfigError: It is not there, or importing it fails; with file and line.
    """
    return guarded(target, "import", lambda: _import(target))


def guarded(place: str, what: str, call: Callable[[], _T]) -> _T:
    """Run code of an environment's author; an exception becomes one line, output is discarded.

    Args:
        place: The reference, for the error.
        what: What is run, such as "__init__".
        call: Runs it.

    Raises:
        ConfigError: The code raised.
    """
    try:
        with quiet_stdout():
            return call()
    except AgentTuningError:
        raise
    except ModuleNotFoundError as error:
        hint = "" if error.name and place.startswith(error.name) else f" (imported by {place})"
        raise ConfigError(f"no module named {error.name!r}{hint}") from error
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{place}: {what} raised {text[:300]}{at}") from error


def _import(target: str) -> ModuleType:
    if not target.endswith(_FILE):
        return import_module(target)
    path = Path(target)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    # The same name in every process: pickles of its objects refer to it.
    digest = blake2b(str(path).encode(), digest_size=4).hexdigest()
    name = f"agenttuning_file_{digest}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    if (folder := str(path.parent)) not in sys.path:
        sys.path.append(folder)  # For modules beside it; last, so that it hides none.
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def check_dialogue(place: str, found: Any) -> None:
    """Check that a class is a complete dialogue.

    Raises:
        ConfigError: It is something else, lacks a member, or its name is taken.
    """
    from dataset_builders.environments.base import TextEnvironment
    from dataset_builders.environments.dialogue import Dialogue

    if not isclass(found) or not issubclass(found, Dialogue):
        hint = ""
        if isclass(found) and issubclass(found, TextEnvironment):
            hint = "; a world: name the Dialogue class that has it as `world`"
        what = f"class {found.__name__}" if isclass(found) else type(found).__name__
        raise ConfigError(f"{place}: found {what}, expected a subclass of Dialogue{hint}")
    world = getattr(found, "world", None)
    if not isclass(world) or not issubclass(world, TextEnvironment):
        raise ConfigError(
            f"{place}: world: found {world!r}, expected a subclass of TextEnvironment"
        )
    lacking = [name for name in ("round_limit",) if not hasattr(found, name)]
    lacking += [name for name in ("name", "idle_action") if not hasattr(world, name)]
    for owner, names in ((found, ("read", "write")), (world, ("task_ids", "_begin", "_act"))):
        lacking += [
            name for name in names if getattr(getattr(owner, name), "__isabstractmethod__", False)
        ]
    if lacking:
        raise ConfigError(f"{place}: lacks {', '.join(lacking)}")
    check_name(place, world.name)


def check_name(place: str, name: object) -> None:
    """Check an environment's name.

    Raises:
        ConfigError: It is no identifier, or is the name of one of the paper's tasks.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{place}: name: found {name!r}, expected letters, digits and _ (task ids are "
            "<name>-<split>-<rest>)"
        )
    if name in RESERVED:
        raise ConfigError(f"{place}: name: found {name!r}, which is taken; choose another")


def checked_ids(place: str, beginning: str, ids: Any) -> tuple[str, ...]:
    """Check the task ids of a split.

    Args:
        place: The reference, for errors.
        beginning: How each begins: "<name>-<split>-".
        ids: What the environment returned.

    Raises:
        ConfigError: It is no sequence of texts that begin so, or an id repeats.
    """
    where = f"{place}: task_ids"
    if isinstance(ids, str) or not isinstance(ids, Sequence):
        raise ConfigError(f"{where}: found {type(ids).__name__}, expected a sequence of texts")
    for each in ids:
        if not isinstance(each, str) or not each.startswith(beginning):
            raise ConfigError(f"{where}: found {each!r:.60}, expected text, {beginning}<rest>")
    repeated = [each for each, number in Counter(ids).items() if number > 1]
    if repeated:
        raise ConfigError(f"{where}: {repeated[0]!r} is there twice, expected ids to be unique")
    return tuple(ids)
