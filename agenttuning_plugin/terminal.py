"""What the commands share: consoles, JSON output and options."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console()
"""Results."""

errors = Console(stderr=True)
"""Errors, and what is said beside a result."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Template = Annotated[
    str | None,
    typer.Option(help="Chat template of this package, such as llama-2, for the tokenizer's own."),
]
EndOfTurn = Annotated[
    list[str] | None,
    typer.Option(help="Token beside eos that ends a turn, as a recipe's eot_tokens; repeatable."),
]


def plain(text: str) -> str:
    """Text that rich prints as it is."""
    return text.replace("[", r"\[")


def emit(value: Any) -> None:
    """Print JSON as it is: rich would wrap and colour it."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
