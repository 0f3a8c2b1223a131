from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataset_builders.cleaning.provenance import normalise_model
from dataset_builders.cleaning.steps import Cleaning
from dataset_builders.errors import ConfigError
from dataset_builders.sources.loading import SourceSpec, fingerprint, load_source

GPT_4 = ("gpt4", "gpt-4", "gpt-4-0613", "Model: GPT-4", "GPT-4 Turbo", "gpt_4_32k", "openai/gpt-4",
         "OpenAI GPT-4 (8k)", " GPT 4 ", "gpt-4-1106-preview")  # fmt: skip
GPT_35 = ("gpt-3.5", "gpt-3.5-turbo-16k", "Default (GPT-3.5)", "Legacy (GPT-3.5)", "gpt35",
          "gpt-35-turbo", "model=gpt-3.5", "text-davinci-002-render-sha")  # fmt: skip
OTHERS = ("", "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-45", "gpt-3", "ChatGPT", "claude-2",
          "llama-gpt-4-distilled", "mygpt4")  # fmt: skip


@pytest.mark.parametrize("name", GPT_4)
def test_spellings_of_gpt_4(name: str) -> None:
    assert normalise_model(name) == "gpt-4"


@pytest.mark.parametrize("name", GPT_35)
def test_spellings_of_gpt_3_5(name: str) -> None:
    assert normalise_model(name) == "gpt-3.5"


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_keep_their_name(name: str) -> None:
    assert normalise_model(name) == name


@pytest.mark.parametrize("format_", ["agentinstruct", "sharegpt", "messages"])
def test_a_source_names_its_model_in_every_format(tmp_path: Path, format_: str) -> None:
    record = {
        "id": "db_1",
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "gpt", "value": "a", "loss": True},
        ],
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    for setting, name in (("", ""), ("GPT4", "gpt-4")):
        spec = SourceSpec(str(tmp_path / "a.jsonl"), format_, model=setting)  # type: ignore[arg-type]
        result = load_source(spec)
        assert [item.model for item in result.conversations] == [name]
        assert result.report.models == {name or "unknown": 1}


def test_fingerprints_cover_cleaning_and_model(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    path = str(tmp_path / "a.jsonl")
    plain = SourceSpec(path, "sharegpt")
    assert fingerprint(plain) == fingerprint(SourceSpec(path, "sharegpt", clean=Cleaning()))
    others = [
        plain,
        SourceSpec(path, "sharegpt", clean=Cleaning(language=None)),
        SourceSpec(path, "sharegpt", clean=Cleaning(near_duplicates=0.9)),
        SourceSpec(path, "sharegpt", model="gpt-4"),
        SourceSpec(path, "messages", model="gpt-4"),
    ]
    assert len({fingerprint(spec) for spec in others}) == len(others)


def test_cleaning_of_other_formats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match="clean: set for format messages"):
        load_source(SourceSpec(str(tmp_path / "a.jsonl"), "messages", clean=Cleaning()))
