"""State of a folder of rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from agenttuning_plugin.rounds.settings import RoundsConfig
from agenttuning_plugin.rounds.state import STATE_FILE, RoundsState, locked
from dataset_builders.errors import ConfigError, DataError


def test_a_phase_is_carried_out_once(tmp_path: Path) -> None:
    state = RoundsState(tmp_path, {"env": "database"})
    assert state.start_phase("train", lambda: {"model": "m"}) == {"model": "m"}
    assert state.phase(1, "collect", lambda: {"kept": 3}) == {"kept": 3}
    again = RoundsState(tmp_path, {"env": "database"})
    assert again.start == {"train": {"model": "m"}}
    assert again.phase(1, "collect", lambda: pytest.fail("repeated")) == {"kept": 3}


def test_a_phase_that_failed_is_open(tmp_path: Path) -> None:
    state = RoundsState(tmp_path, {})

    def fail() -> dict[str, int]:
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        state.phase(1, "collect", fail)
    assert RoundsState(tmp_path, {}).rounds == []


def test_other_settings_are_refused_but_for_the_number_of_rounds(tmp_path: Path) -> None:
    RoundsState(tmp_path, RoundsConfig(env="database").fingerprint()).start_phase("train", dict)
    more = RoundsConfig(env="database", rounds=9, batch_size=2)
    RoundsState(tmp_path, more.fingerprint())
    with pytest.raises(ConfigError, match=r"state\.json: alpha: .*0\.05, found 0\.1"):
        RoundsState(tmp_path, RoundsConfig(env="database", alpha=0.1).fingerprint())


@pytest.mark.parametrize(
    "text", ['{"version": 1', '{"version": 1}', '{"version": 1, "settings": 3}']
)
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(DataError, match=r"state\.json: not the state of rounds"):
        RoundsState(tmp_path, {})


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(ConfigError, match="another process is running rounds in it"),
        locked(tmp_path),
    ):
        pass
