"""Pages that are made from code, or must agree with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import agenttuning_plugin
from agenttuning_plugin.config.reference import page

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*.md")])


def test_the_page_of_keys_is_what_the_models_say() -> None:
    found = (ROOT / "docs/reference/recipe.md").read_text("utf-8")
    assert found == page(), "run: make pages"


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == agenttuning_plugin.__version__
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(
        r"`((?:tests|docs|recipes|dataset_builders|evaluators|agenttuning_plugin)/[\w/.*-]+)`", text
    )
    missing = [link for link in links if not (path.parent / link).exists()]
    missing += [name for name in named if not list(ROOT.glob(name.rstrip("/")))]
    assert not missing
