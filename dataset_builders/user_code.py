"""Load functions of a user's own by reference: `package.module:name` or `./file.py:name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from dataset_builders.errors import ConfigError

_FILE = ".py"


def is_reference(text: str) -> bool:
    """Whether a text has the form of a reference; the function may be missing."""
    return ":" in text


def load_function(reference: str, what: str) -> Callable[..., Any]:
    """Import a function.

    Args:
        reference: `package.module:name`, or `file.py:name` with a path that is absolute or
            relative to the working folder.
        what: Name of the setting, for errors.

    Raises:
        ConfigError: There is no such module or name, its import fails, or it is no function.
    """
    target, _, name = reference.rpartition(":")
    if not target or not name.isidentifier():
        raise ConfigError(
            f"{what}: found {reference!r}, expected module:function or ./file.py:function"
        )
    try:
        module = _load_file(target) if target.endswith(_FILE) else importlib.import_module(target)
    except FileNotFoundError:
        raise ConfigError(f"{what}: found no file {target}") from None
    except Exception as error:
        raise ConfigError(f"{what}: {target} cannot be imported: {one_line(error)}") from error
    found = getattr(module, name, None)
    if not callable(found):
        kind = "nothing" if found is None else type(found).__name__
        raise ConfigError(f"{what}: {reference}: found {kind}, expected a function")
    function: Callable[..., Any] = found
    return function


def source_digest(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of the file that defines a function, in hexadecimal.

    Raises:
        ConfigError: It is not defined in a Python file, so that a change would go unnoticed.
    """
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
        assert file is not None
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except (AssertionError, OSError, TypeError) as error:
        raise ConfigError(f"{function!r}: expected a function defined in a Python file") from error


def one_line(error: BaseException) -> str:
    """Return an exception as one line, with the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{text[:300]}{at}"


def _load_file(target: str) -> ModuleType:
    path = Path(target).expanduser().resolve()
    content = path.read_bytes()
    # Named by path and content: an edited file is another module.
    digest = hashlib.sha256(str(path).encode() + b"\0" + content).hexdigest()[:16]
    name = f"agenttuning_user_{digest}"
    return load_file(path, name)


def load_file(path: Path, name: str) -> ModuleType:
    """Import a Python file as a module of this name, once."""
    if name in sys.modules:
        return sys.modules[name]
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
