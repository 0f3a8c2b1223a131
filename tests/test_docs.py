"""The documentation as a site: it builds without a warning and needs nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
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


NAME = r"(?:agenttuning_plugin|dataset_builders|evaluators)(?:\.\w+)+"


def dotted_names(text: str) -> set[str]:
    """Names of modules and of what they define, in prose, commands and examples."""
    names = set(re.findall(rf"\b{NAME}", text))
    for module, imported in re.findall(rf"^from ({NAME[:-1]}*) import (.+)$", text, re.MULTILINE):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    return names


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or what one defines or exports; nothing is imported."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:end])
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if module.is_file():
            text = module.read_text("utf-8")
            return end == len(parts) or bool(re.search(rf"\b{parts[end]}\b", text))
    return False


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("*.md")))
def test_code_that_pages_name_exists(path: Path) -> None:
    assert not [name for name in sorted(dotted_names(path.read_text("utf-8"))) if not exists(name)]


def test_a_name_that_does_not_exist_would_be_found() -> None:
    assert exists("dataset_builders.mixing.order.MixOrder")
    assert not exists("dataset_builders.mixing.order.NoSuchOrder")
    assert not exists("dataset_builders.no_such_module")
    assert dotted_names("from evaluators import A, B") == {"evaluators.A", "evaluators.B"}


def test_search_works_without_a_server(site: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.implicitly_wait(60)  # seconds, until an element is there
        browser.get((site / "guides/data.html").as_uri())
        field = browser.find_element("css selector", "input[name=query]")
        browser.execute_script("arguments[0].focus()", field)
        field.send_keys("contamination")
        found = browser.find_element("css selector", ".md-search-result__link")
        assert found.get_attribute("href").startswith("file://")
    finally:
        browser.quit()


FAQ = re.findall(
    r"```python\n(.*?)```\n+```\n(.*?)```", (ROOT / "docs/faq.md").read_text("utf-8"), re.S
)


@pytest.mark.parametrize(("code", "printed"), FAQ)
def test_examples_of_the_faq_print_what_it_says(
    code: str,
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if "AgentInstruct" in code:
        shared = request.getfixturevalue("shared")
        (tmp_path / "AgentInstruct").symlink_to(shared / "data/agentinstruct")
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # our own text
    assert capsys.readouterr().out == printed


def test_the_faq_has_examples() -> None:
    assert len(FAQ) == 2
