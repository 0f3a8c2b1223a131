"""Optional dependencies: a failed import becomes one line with the install command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from dataset_builders.errors import MissingExtraError

_OWN = ("agenttuning_plugin", "dataset_builders", "evaluators")


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Convert import failures in the context to a message that names the extra to install.

    Args:
        extra: Extra of this package that holds what is imported.

    Raises:
        MissingExtraError: A third-party module is missing, or cannot be imported, such as one with
            an incompatible version.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module in _OWN:  # A bug of ours, not a missing dependency.
            raise
        missing = isinstance(error, ModuleNotFoundError) and module and not _there(module)
        fault = f"{module} is missing" if missing else f"cannot be imported: {error}"
        raise MissingExtraError(f"{fault}: {install_line(extra)}") from error


def require_modules(names: tuple[str, ...], extra: str) -> None:
    """Check that modules are installed, without importing them.

    Raises:
        MissingExtraError: A module is missing; names the first one.
    """
    for name in names:
        if not _there(name):
            raise MissingExtraError(f"{name} is missing: {install_line(extra)}")


def install_line(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'agenttuning-plugin[{extra}]'"


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # Already imported, by something that left no module spec.
        return True
