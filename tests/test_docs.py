"""The documentation as a site: it builds without a warning and needs nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not importlib.util.find_spec("mkdocs"):
        pytest.skip("mkdocs is not installed: pip install 'agenttuning-plugin[docs]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in ROOT.glob("docs/**/*.md")}
    made = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert pages <= made


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = r"<(?:script|img|iframe|source)[^>]*\ssrc=|<link[^>]*rel=\"?(?:stylesheet|preload|icon)"
    for page in site.rglob("*.html"):
        tags = re.findall(r"<[^>]+>", page.read_text("utf-8"))
        assert not [tag for tag in tags if re.match(loads, tag) and "//" in tag]


def test_public_names_are_documented(site: Path) -> None:
    text = (site / "reference/api.html").read_text("utf-8")
    for name in ("build_mix", "EvaluatorCallback", "Evaluator", "SourceSpec"):
        assert re.search(rf'id="[\w.]*\.{name}"', text)
