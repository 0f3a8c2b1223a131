"""Pages that are made from code, or must agree with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import agenttuning_plugin
import dataset_builders
import evaluators
from agenttuning_plugin.cli import reference as commands
from agenttuning_plugin.config import reference as keys

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*.md")])


@pytest.mark.parametrize(("name", "page"), [("recipe", keys.page), ("cli", commands.page)])
def test_generated_pages_are_what_the_code_says(name: str, page: object) -> None:
    assert callable(page)
    found = (ROOT / f"docs/reference/{name}.md").read_text("utf-8")
    assert found == page(), "run: make pages"


def test_every_argument_and_option_has_a_help_text() -> None:
    """With every release of typer: some lose the help of positional arguments."""
    rows = [row for row in commands.page().splitlines() if row.startswith("| `")]
    assert len(rows) > 100
    assert not [row for row in rows if row.endswith("|  |")]


def test_the_api_page_lists_the_public_names() -> None:
    text = (ROOT / "docs/reference/api.md").read_text("utf-8")
    listed = re.findall(r"^::: (\w+)\.(\w+)$", text, re.MULTILINE)
    packages = {"agenttuning_plugin": agenttuning_plugin, "evaluators": evaluators}
    packages["dataset_builders"] = dataset_builders
    for package, name in listed:
        assert name in packages[package].__all__
    public = {name for package in packages.values() for name in package.__all__}
    assert sorted(name for _, name in listed) == sorted(public)


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == agenttuning_plugin.__version__
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    named = re.findall(
        r"`((?:tests|docs|recipes|benchmarks|dataset_builders|evaluators|agenttuning_plugin)"
        r"/[\w/.*-]+)`",
        text,
    )
    missing = [link for link in links if not (path.parent / link).exists()]
    missing += [name for name in named if not list(ROOT.glob(name.rstrip("/")))]
    assert not missing


def test_pages_that_code_names_exist() -> None:
    named: set[str] = set()
    for folder in ("agenttuning_plugin", "dataset_builders", "evaluators", "recipes", "tests"):
        for path in [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.yaml")]:
            named |= set(re.findall(r"docs/[\w/{}-]+\.md", path.read_text("utf-8")))
    assert len(named) > 10
    assert not [name for name in named if not list(ROOT.glob(re.sub(r"\{\w+\}", "*", name)))]
