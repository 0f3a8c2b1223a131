"""An ordinary Axolotl YAML as a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from agenttuning_plugin.config.rules import check_recipe
from agenttuning_plugin.preflight.adopt import adopt
from dataset_builders.errors import ConfigError

ORDINARY = """\
# My chat model.
base_model: meta-llama/Llama-3.2-1B-Instruct

# Chats of the team.
datasets:
  - path: chat.jsonl # the good ones

    type: chat_template
    field_messages: messages
val_set_size: 0.1
dataset_prepared_path: last_run_prepared

# How long.
num_epochs: 3
micro_batch_size: 2 # fits
shuffle_merged_datasets: true
sequence_len: 2048
"""


@pytest.fixture
def ordinary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    Path("chat.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 50, "utf-8")
    path = tmp_path / "chat.yaml"
    path.write_text(ORDINARY, "utf-8")
    return path


def test_the_recipe_says_the_same(ordinary: Path) -> None:
    made = adopt(ordinary, ["agent.jsonl", "zai-org/AgentInstruct"], 0.3)
    cfg = yaml.safe_load(made.text)
    assert cfg["agenttuning"] == {
        "eta": 0.3,
        "agent": [{"path": "agent.jsonl"}, {"path": "zai-org/AgentInstruct"}],
        "general": [{"path": "chat.jsonl", "format": "messages"}],
        "holdout": 5,
        "general_passes": 3,
        "evaluators": [{"type": "general_loss"}],
    }
    assert cfg["plugins"] == ["agenttuning_plugin.AgentTuningPlugin"]
    gone = {"datasets", "val_set_size", "num_epochs", "shuffle_merged_datasets"}
    assert not gone & cfg.keys()
    before = yaml.safe_load(ORDINARY)
    assert all(cfg[key] == before[key] for key in before.keys() - gone)
    check_recipe({**cfg, "base_model": ""})
    assert ordinary.read_text("utf-8") == ORDINARY
    assert [note.split(":")[0].split(" ")[0] for note in made.notes] == [
        "val_set_size",
        "num_epochs",
        "shuffle_merged_datasets",
    ]


def test_comments_stay(ordinary: Path) -> None:
    lines = adopt(ordinary, ["a.jsonl"], 0.2).text.splitlines()
    for comment in ("# My chat model.", "# Chats of the team.", "# How long."):
        assert comment in lines
    assert "micro_batch_size: 2 # fits" in lines
    assert lines.index("# Chats of the team.") < lines.index("plugins:")
    assert lines.index("agenttuning:") < lines.index("dataset_prepared_path: last_run_prepared")


@pytest.mark.parametrize(
    ("entry", "sources"),
    [
        (
            {"path": "x/y", "type": "chat_template", "split": "train[:500]"},
            [{"path": "x/y", "format": "messages", "splits": ["train"], "limit": 500}],
        ),
        (
            {
                "path": "x/y",
                "type": "chat_template",
                "field_messages": "conversations",
                "message_property_mappings": {"role": "from", "content": "value"},
            },
            [{"path": "x/y", "format": "sharegpt", "clean": False}],
        ),
        (
            {
                "path": "x/y",
                "type": "chat_template",
                "field_messages": "conversations",
                "message_field_role": "from",
                "message_field_content": "value",
                "message_field_training": "loss",
            },
            [{"path": "x/y", "format": "agentinstruct"}],
        ),
        ({"path": "x/y", "type": "alpaca"}, [{"path": "x/y", "format": "alpaca"}]),
        (
            {"path": "x.jsonl", "ds_type": "json", "type": "sharegpt", "split": "train"},
            [{"path": "x.jsonl", "format": "sharegpt", "clean": False}],
        ),
        (
            {"path": "json", "data_files": ["a.jsonl", "b.jsonl"], "type": "chat_template"},
            [
                {"path": "a.jsonl", "format": "messages"},
                {"path": "b.jsonl", "format": "messages"},
            ],
        ),
        (
            {"path": "x/y", "data_files": "d/*.json", "revision": "v1", "type": "chat_template"},
            [{"path": "x/y", "data_files": ["d/*.json"], "format": "messages", "revision": "v1"}],
        ),
    ],
)
def test_entries_are_translated(
    entry: dict[str, Any], sources: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"base_model": "m", "datasets": [entry], "max_steps": 5}))
    section = yaml.safe_load(adopt(path, ["a.jsonl"], 0.2).text)["agenttuning"]
    assert section["general"] == sources
    assert "general_passes" not in section
    assert section["holdout"] == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"datasets": [{"path": "x", "type": "completion"}]}, "datasets.0: type: found 'complet"),
        ({"datasets": [{"path": "x", "type": {"format": "{input}"}}]}, "datasets.0: type: found {"),
        ({"datasets": []}, "datasets: found none"),
        (
            {"datasets": [{"path": "x", "type": "chat_template", "train_on_eos": "all"}]},
            "datasets.0: train_on_eos: found 'all', expected 'turn'",
        ),
        (
            {"datasets": [{"path": "x", "type": "chat_template", "roles": {"user": ["me"]}}]},
            "datasets.0: roles: found",
        ),
        (
            {"datasets": [{"path": "x", "type": "chat_template", "split": "train[5%:]"}]},
            "datasets.0: split: found 'train[5%:]'",
        ),
        ({"rl": "dpo"}, "rl: found 'dpo'"),
        ({"test_datasets": [{"path": "x"}]}, "use agenttuning.holdout"),
        ({"train_on_inputs": True, "min_sample_len": 3}, "min_sample_len: found 3"),
        ({"agenttuning": {"eta": 0}}, "this is already a recipe of the plugin"),
    ],
)
def test_what_cannot_be_said_is_refused(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    entry = {"path": "x/y", "type": "chat_template"}
    path.write_text(yaml.safe_dump({"base_model": "m", "datasets": [entry], **keys}))
    with pytest.raises(ConfigError) as error:
        adopt(path, ["a.jsonl"], 0.2)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_anchors_across_what_is_replaced_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "datasets: &d\n  - {path: x/y, type: chat_template}\nlora_target_modules: [q]\nsplit: *d\n"
    )
    with pytest.raises(ConfigError, match="cannot be edited as text"):
        adopt(path, ["a.jsonl"], 0.2)


@pytest.mark.parametrize(
    "text",
    [
        "datasets:\n- path: x/y\n  type: chat_template\n",
        "datasets: [{path: x/y,\n  type: chat_template}]\nseed: 3\n",
        "seed: 1\ndatasets:\n- path: x/y\n\n  # which\n  type: chat_template\n# end\ntf32: false",
        "plugins:\n  - some_package.OtherPlugin\ndatasets: [{path: x/y, type: alpaca}]",
    ],
)
def test_any_layout_is_edited(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, "utf-8")
    before = yaml.safe_load(text)
    made = yaml.safe_load(adopt(path, ["a.jsonl"], 0.2).text)
    assert made["plugins"][-1] == "agenttuning_plugin.AgentTuningPlugin"
    assert len(made["plugins"]) == 1 + len(before.get("plugins", []))
    assert made["agenttuning"]["general"][0]["path"] == "x/y"
    others = before.keys() - {"datasets", "plugins"}
    assert {key: made[key] for key in others} == {key: before[key] for key in others}


def test_the_command_writes_beside_and_never_over(ordinary: Path, run: Any) -> None:
    code, out, err = run("adopt", ordinary, "--agent", "agent.jsonl")
    assert code == 0, err
    target = ordinary.with_name("chat-agenttuning.yaml")
    assert f"next: agenttuning check {target}" in out
    assert yaml.safe_load(target.read_text("utf-8"))["agenttuning"]["eta"] == 0.2
    code, _, err = run("adopt", ordinary, "--agent", "agent.jsonl")
    assert code == 1
    assert "exists already; --force replaces it" in err
    assert run("adopt", ordinary, "--agent", "b.jsonl", "--force")[0] == 0
    code, _, err = run("adopt", ordinary, "--agent", "b.jsonl", "--force", "--out", ordinary)
    assert code == 1
    assert ordinary.read_text("utf-8") == ORDINARY
