"""`agenttuning env setup` against a local server: what it fetches makes `env list` say ready."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.downloads import fetch as fetching
from dataset_builders.downloads import sources
from dataset_builders.downloads.sources import RECORD, Source, source_of
from dataset_builders.environments.mind2web import made_up
from dataset_builders.sandbox import engines
from dataset_builders.storage import DATA_VARIABLE, cache_folder
from tests.support.file_server import FileServer, serving_files
from tests.support.graph_samples import write_slice
from tests.support.webshop_samples import write_small_catalogue

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (DATA_VARIABLE, sources.MIRROR_VARIABLE, "ALFWORLD_DATA", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetching.Patience, "__init__", _quick)


def _quick(self: fetching.Patience) -> None:
    for name, value in (("stall", 2.0), ("tries", 2), ("pause", 0.0)):
        object.__setattr__(self, name, value)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving_files() as served:
        yield served


def publish(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]
) -> Source:
    """Serve our own files in the layout of a source, at its addresses under a mirror."""
    real = source_of(name)
    assert real is not None
    listed = []
    for each in real.files:
        if each.path in files:
            content = files[each.path]
            digest = hashlib.sha256(content).hexdigest() if each.sha256 else None
            size = len(content) if each.size else None
            listed.append(replace(each, size=size, sha256=digest))
            server.files[at(each.urls[0])] = content
    assert len(listed) == len(files)
    source = replace(real, files=tuple(listed))
    monkeypatch.setattr(sources, "_sources", lambda: {name: source})
    return source


def at(url: str) -> str:
    return "/" + url.partition("://")[2]


def status(run: Run, name: str) -> dict[str, Any]:
    code, out, err = run("env", "list", "--json")
    assert code == 0, err
    facts: dict[str, Any] = json.loads(out)[name]
    return facts


def webshop_files(folder: Path) -> dict[str, bytes]:
    write_small_catalogue(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def unpacked(path: Path) -> list[str]:
    return lzma.decompress(path.read_bytes()).decode().splitlines()


def graph_files(folder: Path) -> dict[str, bytes]:
    write_slice(folder)
    lines = [f"{line}\n" for line in unpacked(folder / "triples.tsv.xz")]
    labels = [row.split("\t") for row in unpacked(folder / "labels.tsv.xz")]
    names = {entity: {"label": name.strip(), "wikipedia": None} for entity, name in labels}
    return {
        "fb15k-237/valid.txt": "".join(lines[:100]).encode(),
        "fb15k-237/test.txt": "".join(lines[100:]).encode(),
        "fb15k-237/entity2wikidata.json": json.dumps(names | {"/m/zz9": {"label": "Far"}}).encode(),
    }


def test_webshop_is_fetched_indexed_and_played(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("rapidfuzz")
    publish(server, monkeypatch, "webshop", webshop_files(tmp_path / "made"))
    facts = status(run, "webshop")
    assert facts["command"] == "agenttuning env setup webshop"
    code, out, err = run("env", "setup", "webshop", "--yes", "--mirror", server.url)
    assert code == 0, err
    assert "licence: code MIT (WebShop); none stated for the products" in out
    assert "address not verified by this project" in out
    assert out.count("SHA-256 as listed") == 2
    assert status(run, "webshop")["ready"]
    code, out, err = run("env", "validate", "webshop", "--num-tasks", 2)
    assert code == 0, out + err
    number = len(server.requests)
    code, out, _ = run("env", "setup", "webshop", "--yes", "--mirror", server.url)
    assert (code, len(server.requests)) == (0, number)
    assert "webshop: found WebShop's catalogue of 1,000 products in " in out


def test_a_slice_of_freebase_is_fetched_converted_and_played(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("pyoxigraph")
    publish(server, monkeypatch, "knowledge_graph", graph_files(tmp_path / "made"))
    monkeypatch.setenv(sources.MIRROR_VARIABLE, server.url)
    code, out, err = run("env", "setup", "knowledge_graph", "--yes")
    assert code == 0, err
    assert out.count("no checksum is known; SHA-256 ") == 3
    assert "214 named entities" in out
    folder = cache_folder("knowledge_graph")
    for name in ("triples.tsv.xz", "labels.tsv.xz"):
        ours, made = unpacked(folder / name), unpacked(tmp_path / "made" / name)
        assert sorted(ours) == sorted(made)
    assert status(run, "knowledge_graph")["ready"]
    code, out, err = run("env", "validate", "knowledge_graph", "--num-tasks", 2)
    assert code == 0, out + err
    # The sums recorded then are what a second fetch is compared with.
    (folder / "fb15k-237/valid.txt").unlink()
    path = at(source_of("knowledge_graph").files[0].urls[0])  # type: ignore[union-attr]
    server.files[path] = b"/m/a\t/x/y/z\t/m/b\n"
    code, _, err = run("env", "setup", "knowledge_graph", "--yes")
    assert code == 2
    assert "expected" in err
    assert not (folder / "fb15k-237/valid.txt").exists()


def games(grammar: str = 'template :: "put {o} in/on {r}";') -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for split in ("train", "valid_unseen"):
            texts = dict.fromkeys(("pddl_domain", "pddl_problem"), "(x)") | {"grammar": grammar}
            game = json.dumps(texts)
            folder = f"json_2.1.1/{split}/look_at-{split}/trial_1"
            archive.writestr(f"{folder}/game.tw-pddl", game)
            archive.writestr(f"{folder}/other.txt", "x")
    return packed.getvalue()


def alfworld_files(archive: bytes) -> dict[str, bytes]:
    listed = {"look_at": ["json_2.1.1/valid_unseen/look_at-valid_unseen/trial_1/game.tw-pddl"]}
    lists = json.dumps(listed).encode()
    return {"json_2.1.1_tw-pddl.zip": archive, "standard.json": lists, "dev.json": lists}


def test_games_are_extracted_where_they_are_found(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, monkeypatch, "alfworld", alfworld_files(games()))
    code, out, _ = run("env", "setup", "alfworld", "--yes", "--mirror", server.url)
    assert "2 files extracted" in out
    folder = cache_folder("alfworld")
    assert not list(folder.rglob("*.zip")) + list(folder.rglob("other.txt"))
    from dataset_builders.environments.alfworld.games import open_games, split_paths

    found = open_games(None)
    assert [len(split_paths(found, split)) for split in ("train", "dev", "test")] == [1, 1, 1]
    number = len(server.requests)
    run("env", "setup", "alfworld", "--yes", "--mirror", server.url)
    assert len(server.requests) == number
    # It is ready exactly where the packages are.
    assert (code == 0) == status(run, "alfworld")["ready"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:\\evil"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    packed = io.BytesIO(games())
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(name, "x")
    publish(server, monkeypatch, "alfworld", alfworld_files(packed.getvalue()))
    code, _, err = run("env", "setup", "alfworld", "--yes", "--mirror", server.url)
    assert code == 2
    assert "refused, nothing extracted" in err
    assert not list(cache_folder("alfworld").parent.parent.rglob("*evil*"))
    assert not (cache_folder("alfworld") / "json_2.1.1").exists()


def test_a_stopped_setup_is_continued(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = publish(server, monkeypatch, "alfworld", alfworld_files(games()))
    server.status[at(source.files[-1].urls[0])] = 503
    code, _, err = run("env", "setup", "alfworld", "--yes", "--mirror", server.url)
    assert code == 2
    assert "error: alfworld: json_2.1.1_tw-pddl.zip: " in err
    assert "HTTP 503" in err
    assert len(err.strip().splitlines()) == 1
    server.status.clear()
    number = len(server.requests)
    run("env", "setup", "alfworld", "--yes", "--mirror", server.url)
    assert len(server.requests) == number + 1
    assert json.loads((cache_folder("alfworld") / RECORD).read_text())["complete"]


def hub(server: FileServer, repo: str, revision: str, files: dict[str, bytes]) -> None:
    """Answer like the hub, under the mirror of its address."""
    siblings = [
        {"rfilename": path, "size": len(content), "lfs": lfs(content), "blobId": "0" * 40}
        for path, content in files.items()
    ]
    answer = json.dumps({"id": repo, "sha": revision, "siblings": siblings}).encode()
    base = "/huggingface.co"
    query = "?blobs=true"
    server.files[f"{base}/api/datasets/{repo}/revision/{revision}{query}"] = answer
    for path, content in files.items():
        server.files[f"{base}/datasets/{repo}/resolve/{revision}/{path}"] = content


def lfs(content: bytes) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "pointerSize": 130,
    }


def test_mind2web_replaces_made_up_pages(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    code, out, err = run("env", "setup", "mind2web")
    assert code == 0, err
    assert "not fetched without --yes: Mind2Web's training pages" in out
    assert "MADE-UP" in out
    facts = status(run, "mind2web")
    assert facts["only"] == "made-up pages"
    assert facts["command"] == "agenttuning env setup mind2web"
    made_up.write(tmp_path / "made")
    content = (tmp_path / "made/data/train/train_0.json").read_bytes()
    source = source_of("mind2web")
    assert source is not None
    assert source.hub is not None
    files = {"data/train/train_0.json": content, "data/train/train_1.json": b"[]", "x.pkl": b"x"}
    hub(server, source.hub.repo, source.hub.revision, files)
    code, out, err = run("env", "setup", "mind2web", "--yes", "--mirror", server.url)
    assert code == 0, err
    assert "licence: CC BY 4.0" in out
    assert "x.pkl" not in out
    facts = status(run, "mind2web")
    assert facts["ready"]
    assert "only" not in facts
    assert list(facts["tasks"]) == ["train"]
    code, out, err = run("env", "validate", "mind2web", "--num-tasks", 2)
    assert code == 0, out + err


def test_agentinstruct_is_fetched_from_the_hub(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    files = {f"data/{task}-00000-of-00001.parquet": task.encode() for task in ("os", "db")}
    hub(server, "zai-org/AgentInstruct", "main", files)
    folder = tmp_path / "copy"
    code, out, err = run(
        "env", "setup", "agentinstruct", "--yes", "--data", folder, "--mirror", server.url
    )
    assert code == 0, err
    assert "licence: none stated on the dataset card" in out
    assert {str(p.relative_to(folder)) for p in folder.rglob("*.parquet")} == set(files)


def test_offline_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9"
    for name in ("database", "mind2web"):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        code, _, err = run("env", "setup", name, "--yes", "--mirror", nowhere)
        assert code == 2
        assert len(err.strip().splitlines()) == 1, err
        assert "refused" in err
    code, _, err = run("env", "setup", "database", "--yes", "--mirror", "nowhere")
    assert code == 1
    assert "mirror: found 'nowhere', expected an address" in err


def test_nothing_is_fetched_without_a_yes(run: Run, server: FileServer) -> None:
    code, out, _ = run("env", "setup", "database", "--mirror", server.url)
    assert code == 0
    assert "database: not fetched without --yes: AgentBench's database tasks" in out
    assert "1.1 MB; licence: Apache-2.0 (AgentBench)" in out
    assert server.requests == []


def test_an_edited_file_is_kept_and_named(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish(server, monkeypatch, "webshop", webshop_files(tmp_path / "made"))
    run("env", "setup", "webshop", "--yes", "--mirror", server.url)
    file = cache_folder("webshop") / "items_ins_v2_1000.json"
    file.write_text(file.read_text() + " ")
    _, out, _ = run("env", "setup", "webshop")
    assert f"{file}: SHA-256 differs from {RECORD}; the file is kept" in out


def test_every_missing_environment_names_a_command(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run("env", "list", "--json")
    assert code == 0
    facts = json.loads(out)
    missing = {name for name, each in facts.items() if not each["ready"]}
    assert {"knowledge_graph", "mind2web", "os", "webshop", "hotpot_qa"} <= missing
    for name in missing - {"hotpot_qa"}:  # Published as pickles: its page says how to convert them.
        command = facts[name]["command"]
        assert command.startswith(("agenttuning env setup ", "pip install ", "apt-get install "))
        assert facts[name]["missing"].endswith(command)
    assert facts["card_game"] == {
        "ready": True,
        "missing": "",
        "tasks": {},
        "evaluation_only": True,
    }
    _, out, _ = run("env", "list")
    first = next(each["command"] for each in facts.values() if "command" in each)
    assert out.splitlines()[-1] == f"next: {first}"
    monkeypatch.setattr(engines, "_PROGRAMS", ("no-such-program",))
    monkeypatch.setattr("dataset_builders.sandbox.docker.engine_answers", lambda: False)
    assert engines.missing().endswith("; as root: apt-get install bubblewrap debootstrap")
    code, _, err = run("env", "setup", "os")
    assert code == 1
    assert err.rstrip().endswith("apt-get install bubblewrap debootstrap")


def test_setup_says_what_is_missing(run: Run) -> None:
    code, _, err = run("env", "setup", "alfworld")
    assert code == 1
    assert "error: alfworld: " in err
    assert "nothing to set up" not in err


@pytest.mark.parametrize("old", [True, False])
def test_games_of_another_grammar_are_named(
    run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    place = "dataset_builders.environments.alfworld.environment.missing_packages"
    monkeypatch.setattr(place, lambda: "")
    archive = games() if old else games('template :: "move {o} to {r}";')
    publish(server, monkeypatch, "alfworld", alfworld_files(archive))
    code, out, err = run("env", "setup", "alfworld", "--yes", "--mirror", server.url)
    assert code == 0, err
    assert ("do not match AgentInstruct's rows" in out) is not old


@pytest.mark.parametrize(("answer", "code"), [("n", 0), ("y", 2)])
def test_a_terminal_is_asked(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "agenttuning_plugin", "env", "setup", "database"]
    child = subprocess.Popen(
        [*command, "--mirror", server.url], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    shown = b""
    with contextlib.suppress(OSError):  # The terminal's end.
        while block := os.read(ours, 4096):
            shown += block
    os.close(ours)
    assert child.wait() == code, shown
    text = " ".join(shown.decode().split())
    assert "1.1 MB" in text
    assert "licence: Apache-2.0 (AgentBench)" in text
    assert "Fetch? [y/N]" in text
    assert bool(server.requests) == (answer == "y")
    assert ("HTTP 404 (not found)" in text) == (answer == "y")


def test_a_killed_setup_is_continued(run: Run, server: FileServer, shared: Path) -> None:
    source = source_of("database")
    assert source is not None
    for each in source.files:
        content = (shared / "data/dbbench" / each.path).read_bytes()
        server.files[at(each.urls[0])] = content
    server.pace = 0.01
    command = [sys.executable, "-m", "agenttuning_plugin", "env", "setup", "database", "--yes"]
    child = subprocess.Popen([*command, "--mirror", server.url], stdout=subprocess.DEVNULL)
    part = cache_folder("database") / ".standard.jsonl.part"
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 50_000):
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert not json.loads((part.parent / RECORD).read_text())["complete"]
    server.pace, server.requests = 0.0, []
    code, out, err = run("env", "setup", "database", "--yes", "--mirror", server.url)
    assert code == 0, err
    assert out.count("SHA-256 as listed") == 2
    first, second = (asked for _, asked in server.requests)
    assert int(first.removeprefix("bytes=").rstrip("-")) > 50_000
    assert second == ""
    code, out, err = run(
        "env", "validate", "database", "--option", "tasks=agentbench", "--num-tasks", 2
    )
    assert code == 0, out + err
