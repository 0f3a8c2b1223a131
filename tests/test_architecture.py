"""What depends on what, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each layer, and the layers it may not import.
FORBIDDEN = {
    "dataset_builders": {"evaluators", "agenttuning_plugin"},
    "evaluators": {"agenttuning_plugin"},
    "agenttuning_plugin": set(),
}


def imported_packages(source: str) -> set[str]:
    """Top-level names of all imports, those within functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Lazy exports and registries name modules in text, as "package.module:Class".
            head, dot, _ = node.value.partition(".")
            if (
                dot
                and head in FORBIDDEN
                and node.value.replace(":", ".").replace(".", "_").isidentifier()
            ):
                names.add(head)
    return names


def violations(package: str, source: str) -> set[str]:
    return imported_packages(source) & FORBIDDEN[package]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_dependencies_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {
        str(file.relative_to(ROOT)): names
        for file in files
        if (names := violations(package, file.read_text("utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import evaluators",
        "from evaluators.evaluator import Evaluator",
        "def f():\n    from agenttuning_plugin.config.recipe import AgentTuningArgs",
        'MODULES = {"X": "evaluators.evaluator"}',
        'HELD_OUT = {"x": "evaluators.tasks.held_out.scienceworld:ScienceWorld"}',
    ],
)
def test_an_upward_import_would_be_found(source: str) -> None:
    assert violations("dataset_builders", source)


def imported_modules(source: str) -> set[str]:
    """Dotted names that any import names, those within functions and for types included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def order_of(sources: dict[str, str]) -> list[str]:
    """The modules in an order in which each comes after all that it imports."""
    graph = {
        name: (imported_modules(text) & set(sources)) - {name} for name, text in sources.items()
    }
    return list(TopologicalSorter(graph).static_order())


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = [file for package in FORBIDDEN for file in (ROOT / package).rglob("*.py")]
    sources = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text("utf-8")
        for file in files
    }
    assert len(order_of(sources)) == len(files)
    with pytest.raises(CycleError):
        order_of({"a": "from b import c", "b": "def f():\n    import a"})


# The rooms of each package, from the bottom: each may import itself and those before it. A
# module beside the rooms stands in the list by its own name.
ROOMS = {
    "dataset_builders": (
        "errors",
        "extras",
        "lazy_exports",
        "stdio",
        "storage",
        "settings",
        "finish_reason",
        "reasoning",
        "tools",
        "user_code",
        "row_options",
        "conversation",
        "readers",
        "cleaning",
        "formats",
        "variation",
        "sources",
        "masks",
        "encoding",
        "mixing",
        "manifest",
        "contamination",
        "endpoints",
        "sandbox",
        "downloads",
        "environments",
        "rollouts",
        "collection",
        "recovery",
        "instructions",
        "self_replay",
        "refusals",
    ),
    "evaluators": (
        "stats",
        "distributed",
        "models",
        "evaluator",
        "results",
        "runner",
        "tasks",
        "training",
    ),
    "agenttuning_plugin": (
        "console",
        "config",
        "estimates",
        "reports",
        "evaluation",
        "training_data",
        "trainers",
        "export",
        "serving",
        "preflight",
        "demo",
        "sweeps",
        "rounds",
        "cli",
        "__main__",
    ),
}


def room_of(module: str) -> tuple[str, str]:
    """Package and room of a module; the room of a package itself is ""."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def climbs(module: str, source: str, modules: set[str]) -> Iterator[str]:
    """Rooms above its own that a module imports."""
    package, room = room_of(module)
    for name in imported_modules(source) & modules:
        other, above = room_of(name)
        order = ROOMS[package]
        if other == package and above and room and order.index(above) > order.index(room):
            yield above


def sources_of(package: str) -> dict[str, str]:
    """Text of each module of a package, by its dotted name."""
    files = (ROOT / package).rglob("*.py")
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file.read_text("utf-8") for file, name in names.items()}


@pytest.mark.parametrize("package", ROOMS)
def test_every_module_is_in_a_room(package: str) -> None:
    assert {room for name in sources_of(package) if (room := room_of(name)[1])} == set(
        ROOMS[package]
    )


@pytest.mark.parametrize("package", ROOMS)
def test_no_room_imports_a_room_above_it(package: str) -> None:
    sources = sources_of(package)
    found = {
        (name, above)
        for name, text in sources.items()
        for above in climbs(name, text, set(sources))
    }
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "from dataset_builders.collection.store import Store",
        "from dataset_builders.collection import store",
        "def f():\n    import dataset_builders.collection.store",
    ],
)
def test_an_import_of_a_room_above_would_be_found(source: str) -> None:
    modules = {"dataset_builders.collection", "dataset_builders.collection.store"}
    assert "collection" in set(climbs("dataset_builders.readers.files", source, modules))
    assert not set(climbs("dataset_builders.instructions.thoughts", source, modules))


def loaded_after(statement: str, *modules: str) -> set[str]:
    """Which of the modules a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*[m for m in {modules!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.split())


HEAVY = ("torch", "transformers", "axolotl", "trl", "datasets", "openai")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    assert loaded_after(f"import {package}", *HEAVY) == set()


def test_build_mix_is_exported_without_a_trainer() -> None:
    loaded = loaded_after("from agenttuning_plugin import build_mix", "torch", "axolotl", "trl")
    assert loaded == set()


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_after("import json", "json", "torch") == {"json"}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_every_public_name_can_be_imported(package: str) -> None:
    pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[axolotl]'")
    code = (
        f"import {package}\n"
        f"for name in {package}.__all__: getattr({package}, name)\n"
        f"try:\n    {package}.no_such_name\n"
        "except AttributeError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.split()[-1] == "refused"


def test_held_in_environments_are_the_data_layers_own() -> None:
    from dataset_builders.environments import HELD_IN

    assert HELD_IN
    assert all(place.startswith("dataset_builders.") for place in HELD_IN.values())


def test_test_files_have_names_of_their_own() -> None:
    # Without packages among the tests, pytest imports each file by its bare name.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
