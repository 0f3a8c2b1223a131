"""Page of rounds: scores with intervals, yield, what was learned and lost; works offline."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from agenttuning_plugin.console import writing
from agenttuning_plugin.reports.mix.page import show
from agenttuning_plugin.reports.transcripts.page import render
from agenttuning_plugin.reports.transcripts.read import read_episodes
from agenttuning_plugin.rounds.collecting import FOLDER
from agenttuning_plugin.rounds.state import Facts, RoundsState
from agenttuning_plugin.rounds.training import MODEL
from dataset_builders.errors import SourceNotFoundError
from dataset_builders.storage import replace_text

PAGE = "rounds.html"

_EPISODES = 200
"""Episodes of a transcript page; all are in the files beside it."""

_Links = list[tuple[str, str]]


def write_page(out: Path, state: RoundsState) -> None:
    """Write `rounds.html`, and the transcript pages it links to.

    Raises:
        StorageError: The folder cannot be written.
    """
    rounds = [_round(out, number, facts) for number, facts in enumerate(state.rounds, 1)]
    begun = state.start.get("measure", {})
    base = {"number": "base", "figures": begun.get("base_figures", {})}
    start = {"number": 0, "figures": begun.get("figures", {})}
    start["links"] = _transcripts(out, out / "round-0", {"evaluated": ""})
    scored = [each for each in (base, start, *rounds) if each["figures"]]
    names = list(dict.fromkeys(name for each in scored for name in each["figures"]))
    page = _template().render(
        title=out.name,
        settings=state.settings,
        names=names,
        scored=scored,
        rounds=rounds,
        start=start,
        accepted=max((each["number"] for each in rounds if each["accepted"]), default=0),
    )
    with writing(out):
        replace_text(out / PAGE, page)


def _round(out: Path, number: int, facts: Mapping[str, Facts]) -> dict[str, Any]:
    """What the page shows of a round; of phases that are open, nothing."""
    folder, decided = out / f"round-{number}", facts.get("decide")
    places = {}
    if "collect" in facts:
        places["collected"] = FOLDER
    if "train" in facts:
        places["evaluated"] = MODEL
    return {
        "number": number,
        "figures": facts.get("train", {}).get("figures", {}),
        "base": facts.get("train", {}).get("base", ""),
        "collect": facts.get("collect"),
        "select": facts.get("select"),
        "decide": decided,
        "accepted": bool(decided and decided["accepted"]),
        "links": _transcripts(out, folder, places),
    }


def _transcripts(out: Path, folder: Path, places: Mapping[str, str]) -> _Links:
    """Write a transcript page for each place that has episodes; name and relative link of each."""
    links = []
    for name, place in places.items():
        target = folder / f"{name}.html"
        if not target.exists():
            try:
                shown = read_episodes(folder / place, _EPISODES)
            except SourceNotFoundError:
                continue
            with writing(target):
                replace_text(target, render(shown, f"{folder.name}: {name}"))
        links.append((f"{name} episodes", str(target.relative_to(out))))
    return links


@lru_cache(maxsize=1)
def _template() -> Any:
    import jinja2

    loaders = [jinja2.PackageLoader(__package__, "."), _style()]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": show, "figure": _figure, "words": _words}
    return environment.get_template("page.html")


def _style() -> Any:
    import jinja2

    return jinja2.PackageLoader("agenttuning_plugin.reports.mix", ".")


def _words(name: Any) -> str:
    return str(name).replace("_", " ")


def _figure(metric: Mapping[str, Any]) -> str:
    """Format a figure with its 95 % interval."""
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}] ({metric['n']})"
