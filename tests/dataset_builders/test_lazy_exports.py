"""Lazy exports of a package written for the test, which is imported by another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PACKAGE = """
from typing import TYPE_CHECKING

from dataset_builders.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from json import dumps as dumps
    from package.other import Absent as Absent
    from package.other import Here as Here
    from package.other import Special as Special
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, "eval", {"Special": "axolotl"})
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE, "utf-8")
    (folder / "other.py").write_text("print('loaded')\nHere = 1\n", "utf-8")
    return tmp_path


def run(place: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{code}"],
        capture_output=True,
        text=True,
        cwd=place,
        check=False,
    )
    return (done.stdout + done.stderr).strip()


def test_names_come_from_the_block_for_type_checkers_and_nothing_is_loaded(package: Path) -> None:
    code = "import package; print(package.__all__, {*package.__all__} <= {*dir(package)})"
    assert run(package, code) == "['Absent', 'Here', 'Special', 'dumps'] True"


def test_a_name_is_imported_when_it_is_first_used(package: Path) -> None:
    code = "import package; print('first'); print(package.Here, package.Here)"
    assert run(package, code).split() == ["first", "loaded", "1", "1"]


def test_a_module_that_does_not_have_the_name_is_an_attribute_error(package: Path) -> None:
    assert run(package, "import package; package.other_name").splitlines()[-1] == (
        "AttributeError: module 'package' has no attribute 'other_name'"
    )


@pytest.mark.parametrize(("name", "extra"), [("Here", "eval"), ("Special", "axolotl")])
def test_what_is_not_installed_is_named_with_its_extra(
    package: Path, name: str, extra: str
) -> None:
    (package / "package" / "other.py").write_text("import no_such_library\n", "utf-8")
    assert run(package, f"import package; package.{name}").splitlines()[-1] == (
        "dataset_builders.errors.MissingExtraError: no_such_library is missing: "
        f"pip install 'agenttuning-plugin[{extra}]'"
    )


def test_a_package_without_its_source_is_refused(package: Path) -> None:
    code = "import package; package.__spec__.loader = None; package.lazy_exports('package')"
    assert run(package, code).splitlines()[-1] == (
        "ImportError: package: found no source, expected __init__.py"
    )
