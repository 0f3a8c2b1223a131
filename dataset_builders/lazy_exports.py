"""Lazy exports: a package's public names, each imported on first use.

The scheme is SPEC 1 of Scientific Python. Its library, `lazy_loader`, reads the names from a
stub and allows imports from within the package alone; here the stub is the package's own
`if TYPE_CHECKING:` block, which may import from any package and which type checkers read too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from dataset_builders.extras import needs_extra

Exports = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def lazy_exports(package: str, extra: str = "", extras: Mapping[str, str] | None = None) -> Exports:
    """Return `__getattr__`, `__dir__` and `__all__` for a package.

    Args:
        package: Its `__name__`. What its `if TYPE_CHECKING:` block imports is public.
        extra: The extra to install if an import fails; "" if none would help.
        extras: The same for single names.

    Raises:
        ImportError: The package's source is not available.
    """
    spec = sys.modules[package].__spec__
    read = getattr(spec and spec.loader, "get_source", None)
    source = read(package) if read else None
    if source is None:
        raise ImportError(f"{package}: found no source, expected __init__.py", name=package)
    modules = _type_checking_imports(source)
    own_extra = dict.fromkeys(modules, extra) | dict(extras or {})

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needs_extra(own_extra[name]) if own_extra[name] else nullcontext():
            value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names, sorted(modules)


def _type_checking_imports(source: str) -> dict[str, str]:
    """Return the names that a top-level `if TYPE_CHECKING:` imports, with their modules."""
    return {
        alias.name: str(statement.module)
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
