"""`agenttuning env new`: write a small working environment and its test."""

from __future__ import annotations

import keyword
from importlib import resources
from pathlib import Path

from dataset_builders.environments.class_checks import check_name
from dataset_builders.errors import ConfigError, StorageError


def write_environment(name: str, folder: Path, *, text: bool = False) -> tuple[list[Path], str]:
    """Write an environment and its test.

    Args:
        name: Its name in snake case, such as "support_desk".
        folder: Where to.
        text: Whether actions are text; else tool calls.

    Returns:
        The files, and the reference of the environment's class.

    Raises:
        ConfigError: The name cannot be one, or a file is there already.
        StorageError: The folder cannot be written.
    """
    check_name("env new", name)
    if keyword.iskeyword(name) or name != name.lower():
        raise ConfigError(f"env new: name: found {name!r}, expected snake case, such as my_desk")
    # Not `capitalize` alone: the class of `support_desk` is `SupportDesk`.
    class_name = "".join(part.capitalize() for part in name.split("_"))
    templates = {f"{name}.py": "text" if text else "tools", f"test_{name}.py": "test"}
    for file in templates:
        if (folder / file).exists():
            raise ConfigError(f"{folder / file}: exists already, expected a new file")
    shipped = resources.files("agenttuning_plugin.cli").joinpath("templates")
    for file, template in templates.items():
        content = shipped.joinpath(f"{template}.txt").read_text("utf-8")
        content = content.replace("CLASS", class_name).replace("NAME", name)
        try:
            (folder / file).write_text(content, "utf-8")
        except OSError as error:
            raise StorageError(f"{folder / file}: cannot be written: {error.strerror}") from error
    return [folder / file for file in templates], f"./{name}.py:{class_name}"
