"""Merges that would give another model than the trained one are refused, each in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin.cli import main as cli  # noqa: E402
from agenttuning_plugin.export import output  # noqa: E402
from agenttuning_plugin.export.merge import merge_run  # noqa: E402
from agenttuning_plugin.reports.model_record import MODEL_RECORD, base_fingerprint  # noqa: E402
from dataset_builders.errors import (  # noqa: E402
    AgentTuningError,
    ConfigError,
    DataError,
    SourceNotFoundError,
    StorageError,
)

Make = Callable[..., tuple[Path, Any]]


def changed(source: Path, target: Path, **config: Any) -> Path:
    """A copy of a model with other weights; with other sizes if the config has them."""
    kept = transformers.AutoConfig.from_pretrained(source, **config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        transformers.LlamaForCausalLM(kept).save_pretrained(target)
    return target


def refusal(kind: type[AgentTuningError], run: Path, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        merge_run(run, device="cpu", **options)
    assert "\n" not in str(caught.value)
    assert not (run / "merged").exists()
    assert not list(run.glob(".*merging"))
    return str(caught.value)


def test_another_base_is_refused_by_its_weights_and_config(
    make_run: Make, tiny_model_dir: Path, tmp_path: Path
) -> None:
    run, _ = make_run()
    twin = changed(tiny_model_dir, tmp_path / "twin")
    assert "its weights differs from the base" in refusal(ConfigError, run, base=str(twin))
    wide = changed(tiny_model_dir, tmp_path / "wide", intermediate_size=96)
    assert "its config.json differs from" in refusal(ConfigError, run, base=str(wide))
    # The same weights elsewhere, in two files.
    moved = tmp_path / "moved"
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.save_pretrained(moved, max_shard_size="100KB")
    assert len(list(moved.glob("*.safetensors"))) > 1
    assert base_fingerprint(str(moved)) == base_fingerprint(str(tiny_model_dir))
    assert merge_run(run, base=str(moved), device="cpu").parity


def test_without_a_record_shapes_and_names_are_compared(
    make_run: Make, tiny_model_dir: Path, tmp_path: Path
) -> None:
    run, _ = make_run()
    (run / MODEL_RECORD).unlink()
    wide = changed(tiny_model_dir, tmp_path / "wide", intermediate_size=96)
    found = refusal(ConfigError, run, base=str(wide))
    assert "its config.json differs from the base of the run" in found
    config = json.loads((run / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = "elsewhere/base"
    (run / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    found = refusal(ConfigError, run, base=str(wide))
    assert "but the adapter was trained on elsewhere/base" in found
    renamed = tmp_path / "x/base"
    shutil.copytree(wide, renamed)
    found = refusal(ConfigError, run, base=str(renamed))
    assert "mlp.down_proj: found size 96, but the adapter" in found
    notes = merge_run(run, tmp_path / "out", base=str(_as(tiny_model_dir, tmp_path / "y/base")))
    assert "it is not recorded how the base was loaded" in notes.notes[0]


def _as(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_added_tokens_without_embeddings_are_refused(make_run: Make, small_tokenizer: Any) -> None:
    import copy

    run, _ = make_run()
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.add_tokens(["<call>", "</call>"])
    tokenizer.save_pretrained(run)
    assert "its tokenizer has 402 tokens, but base and adapter have 400" in refusal(
        ConfigError, run
    )


def test_no_room_or_a_folder_in_use_is_refused_first(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, _ = make_run()
    place = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _: place._replace(free=1024))
    assert "found 0.0 GiB free on the disk, expected 0.1 GiB" in refusal(StorageError, run)
    monkeypatch.undo()
    assert "merged: not empty" not in refusal(ConfigError, run, dtype="int8")
    used = tmp_path / "used"
    used.mkdir()
    (used / "file").write_text("mine", "utf-8")
    assert f"{used}: not empty" in refusal(ConfigError, run, out=used)
    assert (used / "file").read_text("utf-8") == "mine"


def test_folders_without_a_model_that_can_be_merged_are_refused(
    make_run: Make, tiny_model_dir: Path, tmp_path: Path
) -> None:
    assert "no such folder" in refusal(SourceNotFoundError, tmp_path / "none")
    (tmp_path / "only/checkpoint-4").mkdir(parents=True)
    assert "try " in refusal(SourceNotFoundError, tmp_path / "only")
    assert "has all weights" in refusal(ConfigError, tiny_model_dir, base="x")
    run, _ = make_run()
    for key, value, found in (
        ("peft_type", "PROMPT_TUNING", "PROMPT_TUNING, which has no merged form"),
        ("base_model_name_or_path", str(tmp_path / "gone"), "no config.json"),
    ):
        path = run / "adapter_config.json"
        before = path.read_text("utf-8")
        path.write_text(json.dumps({**json.loads(before), key: value}), "utf-8")
        (tmp_path / "gone").mkdir(exist_ok=True)
        kind = ConfigError if key == "peft_type" else SourceNotFoundError
        assert found in refusal(kind, run)
        path.write_text(before, "utf-8")
    record = json.loads((run / MODEL_RECORD).read_text("utf-8"))
    record["quantization"] = {"quant_method": "gptq", "bits": 4}
    (run / MODEL_RECORD).write_text(json.dumps(record), "utf-8")
    assert "quantised with gptq, expected bitsandbytes" in refusal(ConfigError, run)


def test_the_command_prints_the_comparison_or_one_line(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run()

    def call(*arguments: str) -> int:
        given = ["agenttuning", "merge", str(run), "--device", "cpu", *arguments]
        monkeypatch.setattr("sys.argv", given)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    assert call("--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["parity"]["holds"]
    assert found["parity"]["difference"] <= found["parity"]["tolerance"]
    assert call("--json") == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.endswith("merged: not empty, expected a new folder (--out)")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0"
WEIGHTS = "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (WEIGHTS, LFS, "adapter_model.safetensors: found no safetensors header"),
        (WEIGHTS, None, "adapter_model.safetensors: found 33,256 bytes, its header expects 36,256"),
        (MODEL_RECORD, b'{"schema": 1, "base": "x"}', "base: found 'x', expected an object"),
        ("base/config.json", b"{oops", "config.json: not JSON"),
        ("base/model.safetensors", LFS, "model.safetensors: found no safetensors header"),
    ],
)
def test_a_damaged_file_is_named(
    file: str, content: bytes | None, message: str, make_run: Make, tiny_model_dir: Path
) -> None:
    run, _ = make_run()
    base = shutil.copytree(tiny_model_dir, run / "base")
    content = (run / file).read_bytes()[:-3000] if content is None else content
    (run / file).write_bytes(content)
    assert message in refusal(DataError, run, base=str(base))


def test_an_unknown_device_is_refused(make_run: Make) -> None:
    run, _ = make_run()
    with pytest.raises(ConfigError, match="`device`: found 'tape', which torch cannot use here"):
        merge_run(run, device="tape")


def test_checkpoints_without_a_number_are_not_proposed(tmp_path: Path) -> None:
    for name in ("checkpoint-5", "checkpoint-10", "checkpoint-best"):
        (tmp_path / name).mkdir()
    assert refusal(SourceNotFoundError, tmp_path).endswith("try " + str(tmp_path / "checkpoint-10"))
