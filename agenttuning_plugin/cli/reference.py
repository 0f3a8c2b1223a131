"""Generate docs/reference/cli.md from the typer app; run by `make pages`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agenttuning_plugin.cli.common import command_of
from agenttuning_plugin.cli.main import app

_HEAD = """# Command line

Every command prints its help with `--help`. Exit codes: 0 success, 1 an error (one line on standard
error, no traceback), 2 a wrong option, 130 after Ctrl-C; further codes are in a command's guide.
"""


def page() -> str:
    """Return the page, in Markdown."""
    return _HEAD + "".join(_section(name, command) for name, command in _commands(command_of(app)))


def _commands(command: Any, name: str = "agenttuning") -> Iterator[tuple[str, Any]]:
    yield name, command
    for child, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(inner, f"{name} {child}")


def _section(name: str, command: Any) -> str:
    """Format one command: its help text, then a row per argument and option."""
    rows = "".join(_row(item) for item in command.params if "completion" not in item.name)
    table = f"\n\n| Option | Default | Description |\n|---|---|---|\n{rows}" if rows else "\n"
    return f"\n## {name}\n\n{_text(command.help)}{table}"


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        # click's `human_readable_name`, which later releases of typer lack.
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif default in (None, False, "", (), []) or callable(default):
        shown = ""
    else:
        shown = "`on`" if default is True else f"`{default}`"
    text = _text(getattr(parameter, "help", "")).replace("\n", " ").replace("|", "\\|")
    return f"| {names} | {shown} | {text} |\n"


def _text(text: str | None) -> str:
    r"""Return help text without rich's escaped brackets."""
    return (text or "").strip().replace("\\[", "[")


if __name__ == "__main__":
    print(page(), end="")
