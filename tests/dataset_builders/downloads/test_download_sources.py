"""The listed sources: their sums are those of the project's copies."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dataset_builders.downloads.plan import carry_out, make_plan
from dataset_builders.downloads.sources import known_sources, mirrored, source_of
from dataset_builders.environments import HELD_IN
from dataset_builders.errors import ConfigError
from tests.support.file_server import serving_files


@pytest.mark.parametrize(
    ("name", "folder", "prefix"),
    [
        ("database", "dbbench", ""),
        ("os", "os_interaction", ""),
        ("rewoo", "rewoo", ""),
        ("web_arena", "webarena", ""),
        ("knowledge_graph", "knowledgegraph", "questions/"),
        ("alfworld", "alfworld", ""),
    ],
)
def test_real_files_have_the_listed_sums(
    shared: Path, tmp_path: Path, name: str, folder: str, prefix: str
) -> None:
    """The project's copies, served at the listed addresses, pass the listed sums."""
    source = source_of(name)
    assert source is not None
    listed, content = [], {}
    for each in source.files:
        local = each.path.removeprefix(prefix)
        places = [shared / "data" / folder / p for p in (local, f"agentbench_{local}")]
        if copy := next((place for place in places if place.is_file()), None):
            content["/" + each.urls[0].partition("://")[2]] = copy.read_bytes()
            listed.append(each)
    assert len(listed) == {"os": 18, "rewoo": 5, "knowledge_graph": 3, "web_arena": 1}.get(name, 2)
    said: list[str] = []
    with serving_files(content) as server:
        plan = make_plan(source, tmp_path, optional=True, mirror=server.url)
        wanted = {each.path for each in listed}
        files = tuple(each for each in plan.files if each.path in wanted)
        carry_out(type(plan)(source, tmp_path, files, {}, 0), said.append)
    assert len(said) == len(listed)
    assert all("SHA-256 as listed" in line for line in said)
    assert make_plan(source, tmp_path, optional=True, mirror=server.url).present == len(listed)


def test_every_source_names_how_it_is_known() -> None:
    assert set(HELD_IN) < set(known_sources())
    for name in known_sources():
        source = source_of(name)
        assert source is not None
        assert source.licence
        assert source.files or source.hub
        for each in source.files:
            assert each.known_by
            assert all(urlsplit(url).scheme == "https" for url in each.urls)
            assert not Path(each.path).is_absolute()
            # A file without a sum is compared with the first fetch only.
            assert each.sha256 is None or len(each.sha256) == 64


def test_a_mirror_is_put_before_host_and_path() -> None:
    assert mirrored("https://a.org/b/c?d=e", None) == "https://a.org/b/c?d=e"
    assert mirrored("https://a.org/b/c?d=e", "http://m:1/x/") == "http://m:1/x/a.org/b/c?d=e"
    with pytest.raises(ConfigError, match="mirror: found 'm', expected an address"):
        mirrored("https://a.org", "m")
