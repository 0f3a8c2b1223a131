"""Logic of `agenttuning env setup`: fetch public data, then prepare the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from agenttuning_plugin.console import errors, plain
from dataset_builders.downloads.plan import (
    Plan,
    carry_out,
    check_files,
    is_unfinished,
    make_plan,
)
from dataset_builders.downloads.sources import Source, mirror_of, source_of
from dataset_builders.environments import HELD_IN, load_environment
from dataset_builders.environments.base import TextEnvironment
from dataset_builders.environments.data import find_data
from dataset_builders.environments.mind2web import made_up
from dataset_builders.errors import DownloadError, SourceNotFoundError
from dataset_builders.storage import DATA_VARIABLE, cache_folder

Say = Callable[[str], None]


def set_up(
    name: str,
    data: str | None,
    say: Say,
    *,
    yes: bool = False,
    everything: bool = False,
    mirror: str | None = None,
) -> None:
    """Fetch an environment's public data if they are missing, then perform its one-time setup.

    Data are fetched to `data`, or to the cache folder in which every command looks. Without `yes`
    the user is asked on a terminal; where there is none, nothing is fetched.

    Args:
        name: A held-in or held-out environment, or another name of `sources.json`.
        data: Folder of its data.
        say: Called with messages.
        yes: Fetch without asking.
        everything: Fetch optional files too.
        mirror: Base address that replaces `https://`; see `sources.mirrored`.

    Raises:
        ConfigError: The name is unknown.
        DownloadError: A file cannot be fetched.
        AgentTuningError: A requirement is missing; the message has the remedy.
    """
    world, source = _world(name), source_of(name)
    if source is not None:
        folder = Path(data) if data is not None else cache_folder(name)
        found = _found(source, world, data)
        if everything or found is None or is_unfinished(source, folder):
            _fetch(source, folder, data, say, yes, everything, mirror_of(mirror))
        else:
            say(f"{name}: found {source.what} in {found}")
        check_files(source, folder, say)
    if world is not None:
        world.setup(data, say)


def _fetch(
    source: Source,
    folder: Path,
    data: str | None,
    say: Say,
    yes: bool,
    everything: bool,
    mirror: str | None,
) -> None:
    if not yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
        say(f"{source.name}: not fetched without --yes: {source.summary()}")
        return
    try:
        plan = make_plan(source, folder, optional=everything, mirror=mirror)
    except DownloadError as error:
        if yes:
            raise
        say(str(error))
        return
    for line in plan.lines() if plan.files else ():
        say(line)
    if plan.files and not yes and not typer.confirm("Fetch?", default=False):
        return
    if made_up.is_made_up(folder):
        made_up.remove(folder)
        plan = make_plan(source, folder, optional=everything, mirror=mirror)
    with _bar(plan) as progress:
        carry_out(plan, say, progress)
    if data is not None:
        say(
            f"{source.name}: in {folder}: name it with --data, or {DATA_VARIABLE} for its parent "
            f"folder"
        )


@contextmanager
def _bar(plan: Plan) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=errors, transient=True, disable=not errors.is_terminal
    ) as progress:
        task = progress.add_task(plain(plan.source.name), total=plan.size or None)
        yield lambda number: progress.advance(task, number)


def _world(name: str) -> type[TextEnvironment] | None:
    from evaluators.tasks.held_out import HELD_OUT, load_held_out

    if name in HELD_OUT:
        return load_held_out(name).dialogue.world
    if name not in HELD_IN and source_of(name) is not None:
        return None
    return load_environment(name).dialogue.world


def _found(source: Source, world: type[TextEnvironment] | None, data: str | None) -> Path | None:
    """Return the folder with real data, or None."""
    variable = os.environ.get(source.folder_variable) if source.folder_variable else None
    given = data if data is not None or DATA_VARIABLE in os.environ else variable
    names = world.data_names if world is not None else (source.name,)
    for needs in source.found_by:
        try:
            folder = find_data(source.name, given, names, needs, source.what)
        except SourceNotFoundError:
            continue
        return None if made_up.is_made_up(folder) else folder
    return None
