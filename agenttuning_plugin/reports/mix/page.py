"""Report page: one HTML file without scripts, works offline, light and dark.

Data are untrusted: every value is escaped by the template engine, and invisible or bidirectional
control characters are shown by their codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from markupsafe import Markup, escape

from agenttuning_plugin.reports.mix import svg
from agenttuning_plugin.reports.mix.stats import SIDES, UNITS
from agenttuning_plugin.reports.segments import escape_invisible, shorten

_MAX_CELL = 400  # characters

_BUILDER_KEYS = {
    "source", "read", "kept", "dropped", "changed", "samples", "lost", "unread", "limited",
    "summary",
}  # fmt: skip
_TOKEN_KEYS = {
    "read", "kept", "rows", "tokens", "trained_tokens", "dropped", "samples", "lengths", "summary",
}  # fmt: skip


def render_page(report: Mapping[str, Any], title: str) -> str:
    """Render the page.

    Args:
        report: Content of `report.json`.
        title: Title, such as the name of the data's folder.
    """
    template = _environment().get_template("page.html")
    page: str = template.render(
        title=title,
        mix=report["mix"],
        notes=report.get("notes", []),
        warnings=report.get("warnings", []),
        share_note=_share_note(report["mix"]),
        shares=_shares(report["mix"]),
        plots=_plots(report["figures"]),
        composition=report["figures"]["composition"],
        lengths=report["figures"].get("lengths"),
        sources=_sources(report),
        encoded=_encoded(report),
        holdout=report.get("holdout"),
        samples=report.get("rows", []),
        manifest=report.get("manifest", {}),
    )
    return page


@lru_cache(maxsize=1)
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "words": lambda name: str(name).replace("_", " "),
        "number": _number,
        "percent": lambda share: f"{100 * share:.2f} %",
        "shown": show,
    }
    return environment


def show(value: Any, limit: int = _MAX_CELL) -> Markup:
    """Escape and shorten a text, with hidden characters as codes."""
    shown = Markup("")
    for part, hidden in escape_invisible(shorten(str(value), limit)):
        shown += Markup("<i class=hidden>{}</i>").format(part) if hidden else escape(part)
    return shown


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}"


def _shares(mix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return realised shares of agent data, and the requested one beside its unit."""
    eta = mix["eta"]
    stages = [(0, eta)] if isinstance(eta, int | float) else eta
    wanted = ", then ".join(f"{e:g}" + (f" from {start:,}" if start else "") for start, e in stages)
    rows = []
    for unit in UNITS:
        if (share := mix.get(f"share_of_{unit}")) is not None:
            asked = wanted if f"{mix['eta_unit']}s" == unit else ""
            rows.append({"unit": unit.replace("_", " "), "share": share, "wanted": asked})
    return rows


def _share_note(mix: Mapping[str, Any]) -> str:
    """Compare the share of examples with that of trained tokens; "" if unknown."""
    share, trained = mix["share_of_examples"], mix.get("share_of_trained_tokens")
    if trained is None or not 0 < share < 1:
        return ""
    number, tokens, agent = mix["examples"], mix["trained_tokens"], mix["agent_examples"]
    means = trained * tokens / agent, (1 - trained) * tokens / (number - agent)
    return (
        f"Agent data are {share:.1%} of the examples and {trained:.1%} of the tokens that the loss "
        f"covers: an example of agent data has {means[0]:,.0f} trained tokens on average, one of "
        f"general data {means[1]:,.0f}."
    )


def _plots(figures: Mapping[str, Any]) -> dict[str, Markup]:
    plots = {"eta": _eta_plot(figures["eta_over_run"])}
    if lengths := figures.get("lengths"):
        limit = lengths["max_length"]
        for unit in UNITS[1:]:
            part, words = lengths[unit], unit.replace("_", " ")
            series = {side: part[side]["rows"] for side in SIDES if part[side]["mean"] is not None}
            inside = limit is not None and limit <= part["edges"][-1]
            mark = (limit, f"max_length {limit:,}") if inside else None
            plots[unit] = svg.histogram(
                f"{words.capitalize()} of a row", f"{words} of a row", part["edges"], series, mark
            )
    for side in SIDES:
        times = figures["exposures"][side]
        if times["rows"]:
            labels = [f"{a}" if a == b else f"{a}-{b}" for a, b in times["ranges"]]
            title = f"Exposures of {side} rows"
            plots[f"exposures_{side}"] = svg.bars(
                title, f"times that a row of {side} data comes", labels, times["rows"], side
            )
    return plots


def _eta_plot(run: Mapping[str, Any]) -> Markup:
    end = max(run["starts"][-1] + 1, run["starts"][-1] + run["window"])
    series = {unit: run[unit] for unit in UNITS if unit in run}
    words = f"position in the mix, in examples; windows of {run['window']:,}"
    return svg.lines("Agent share over the run", words, run["starts"], end, series, run["wanted"])


def _sources(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every source's report; counters unknown here are shown by name."""
    found = []
    for side in SIDES:
        for account in (report.get(side) or {}).get("sources", []):
            others = {key: value for key, value in account.items() if key not in _BUILDER_KEYS}
            found.append({"side": side, **account, "others": _flat(others)})
    return found


def _encoded(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for side in SIDES:
        tokens = (report.get(side) or {}).get("tokens")
        if tokens:
            others = {key: value for key, value in tokens.items() if key not in _TOKEN_KEYS}
            found.append({"side": side, "rows": tokens["kept"], **tokens, "others": _flat(others)})
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten counters, those within a group as "group: name"."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            found += _flat(value, f"{name}: ")
        elif value not in (None, "", []):
            found.append((name, value))
    return found
