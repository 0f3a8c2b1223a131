"""The wheel: three packages, templates and recipes, usable without the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="pip install 'agenttuning-plugin[dev]'")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as an installation would lay it out."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def test_it_holds_all_that_is_needed_and_no_more(unpacked: Path) -> None:
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"agenttuning_plugin", "dataset_builders", "evaluators"}
    for package in tops:
        assert (unpacked / package / "py.typed").is_file()
    recipes = {path.name for path in (ROOT / "recipes").iterdir() if path.is_file()}
    shipped = {path.name for path in (unpacked / "agenttuning_plugin/recipes").iterdir()}
    assert shipped == recipes
    assert (unpacked / "dataset_builders/masks/templates/llama-2.jinja").is_file()
    assert (unpacked / "agenttuning_plugin/reports/mix/page.html").is_file()
    assert (unpacked / "agenttuning_plugin/reports/mix/style.css").is_file()


def test_recipes_are_reachable_after_installation(unpacked: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "agenttuning_plugin", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(unpacked), "PATH": "", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert "./support.py:Support" in run("env", "new", "support")
    assert "./guess.py:Guess" in run("env", "new", "guess", "--text")
    assert "agentlm-13b.yaml" in run("recipe", "list")
    run("recipe", "copy", "agentlm-13b")
    copied = (tmp_path / "agentlm-13b.yaml").read_bytes()
    assert copied == (ROOT / "recipes/agentlm-13b.yaml").read_bytes()
