"""References to environments that are not part of this package.

A reference is `package.module:Class`, `./file.py:Class`, or the name of an entry point in the group
`agenttuning.environments`. It may stand wherever the name of a held-in environment may.
"""

from __future__ import annotations

import sys
from functools import cache
from hashlib import blake2b, sha256
from importlib import import_module
from importlib.metadata import entry_points
from inspect import isclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dataset_builders.environments.adapters import ADAPTERS, adapted, wrapped
from dataset_builders.environments.own_code import guarded
from dataset_builders.errors import ConfigError
from dataset_builders.settings import suggestion
from dataset_builders.user_code import load_file

if TYPE_CHECKING:
    from dataset_builders.environments.dialogue import Dialogue

GROUP = "agenttuning.environments"
"""Group of the entry points, such as `support = "support_desk.environment:SupportDesk"`."""

_FILE = ".py"


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


def code_digest(place: str) -> str:
    """Return a digest of the file that a resolved reference names, to notice that it has changed.

    Returns:
        16 hexadecimal digits; "" for an environment of another package, and without a file.
    """
    target, _, _ = place.rpartition(":")
    if target in ADAPTERS:
        return ""
    file = target if target.endswith(_FILE) else import_quietly(target).__file__
    return sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""


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
    from dataset_builders.environments.tool_environment import ToolEnvironment

    if isclass(found) and issubclass(found, ToolEnvironment):
        from dataset_builders.environments.tool_world import tool_dialogue

        found = tool_dialogue(found, place)
    from dataset_builders.environments.class_checks import check_dialogue

    check_dialogue(place, found)
    checked: type[Dialogue] = found
    return checked


def _is_gym(found: object) -> bool:
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
    return load_file(path, name)
