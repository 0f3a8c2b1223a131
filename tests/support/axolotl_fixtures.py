"""A base model for the recipes, and Axolotl's process-wide state put back after each test."""

from __future__ import annotations

import ast
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dataset_builders.encoding.tokens import IGNORE_INDEX

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
LIMIT = 200  # conversations of a source, to save time

# What a CPU cannot do; nothing else of a recipe's training is changed.
NO_GPU: dict[str, Any] = {
    "bf16": False,  # `auto` would fall to fp16, which no CPU trains in
    "fp16": False,
    "tf32": False,
    "deepspeed": None,
    "fsdp_version": None,
    "fsdp_config": None,
    "quantize_moe_experts": None,
    "use_ray": None,
    "ray_num_workers": None,
    "dataloader_num_workers": 0,
    "dataset_num_proc": 1,
}
# Warnings of other packages that a run on a CPU cannot avoid: message, category, whose.
_NOT_OURS = (
    ("Skipping publisher trust check", "UserWarning"),  # bitsandbytes, as the hub is offline
    ("`torch.jit", "DeprecationWarning"),  # torch's own use of it, through torchao
    ("'pin_memory' argument is set as true", "UserWarning"),  # Axolotl's default
    (".*gemv_4bit", "UserWarning"),  # generation with 4-bit weights
    # TRL's default by its old name, under transformers 5.23 and later.
    ("`gradient_checkpointing` is deprecated", "FutureWarning"),
    ("Paged optimizers are not supported on CPU", "UserWarning"),  # falls back, as told
)

_FOLDERS = ("trainers", "preflight", "export")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let those warnings pass in the tests that train or load a recipe."""
    for item in items:
        if item.path.parent.name in _FOLDERS:
            for message, category in _NOT_OURS:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}:{category}"))


NO_FUSED_LORA = {f"lora_{part}_kernel": False for part in ("mlp", "qkv", "o", "embedding")}


@pytest.fixture(scope="session")
def llama_dir(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 2 layers with the real Llama-2 tokenizer, as the hub has it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    source = shared / "data/tokenizers/llama2"
    if not source.is_dir():
        pytest.skip(f"no Llama-2 tokenizer: {source} is absent")
    folder = tmp_path_factory.mktemp("llama-2-chat-tiny")
    config = transformers.LlamaConfig(
        vocab_size=32000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., Any]:
    """Makes encoded rows of random tokens, two thirds of them trained, the first one too."""
    datasets = pytest.importorskip("datasets")

    def make(number: int, *, seed: int, shortest: int = 2, longest: int = 60) -> Any:
        rng = np.random.default_rng(seed)
        lengths = [shortest, longest, *rng.integers(shortest, longest + 1, number - 2)]
        ids = [rng.integers(5, 400, length).tolist() for length in lengths]
        labels = [[t if i % 3 else IGNORE_INDEX for i, t in enumerate(row, 2)] for row in ids]
        lists = datasets.List(datasets.Value("int32"))
        features = datasets.Features({"input_ids": lists, "labels": lists})
        return datasets.Dataset.from_dict({"input_ids": ids, "labels": labels}, features=features)

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads only wait for each other on a model this small, mostly beside other jobs."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def hub_data(shared: Path) -> dict[str, Path]:
    """AgentInstruct in the hub's layout and a sample of ShareGPT in the hub's file."""
    found = {
        "agent": shared / "data/agentinstruct_hub",
        "general": shared / "data/sharegpt/sharegpt_v3_sample.json",
    }
    for path in found.values():
        if not path.exists():
            pytest.skip(f"no data: {path} is absent")
    return found


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded data, which the recipes share."""
    return tmp_path_factory.mktemp("prepared")


def cpu_recipe(
    name: str, base: Path, sources: dict[str, dict[str, Any]], folder: Path, **changes: Any
) -> Path:
    """Write a copy of a shipped recipe that runs here for two steps.

    Args:
        name: The recipe.
        base: Folder of a tiny model.
        sources: Keys of `agent` and `general` to change.
        folder: Where it, its output and its encoded data go.
        changes: Further keys; None: left out.
    """
    recipe: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    recipe.pop("sweep", None)  # Of a study: its arms are trained, not the recipe itself.
    for part, keys in sources.items():
        recipe["agenttuning"][part] |= keys
    recipe["agenttuning"]["holdout"] = 4
    for evaluator in recipe["agenttuning"].get("evaluators", []):
        evaluator["every"] = 2
        if evaluator["type"] == "agent_task":
            evaluator["num_tasks"] = 2
    recipe |= NO_GPU | (NO_FUSED_LORA if "adapter" in recipe else {})
    recipe |= {
        "base_model": str(base),
        "output_dir": str(folder / "out"),
        "dataset_prepared_path": str(folder / "prepared"),
        "sequence_len": 1024,
        "max_steps": 2,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "save_steps": 2,
        "logging_steps": 1,
    }
    recipe |= {"eval_steps": 2} if "eval_steps" in recipe else {}
    recipe |= changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in recipe.items() if v is not None}))
    return path


@pytest.fixture
def on_cpu(
    llama_dir: Path, hub_data: dict[str, Path], prepared: Path, tmp_path: Path
) -> Callable[..., Path]:
    """Make a copy of a shipped recipe of Llama-2 that runs here for two steps."""

    def write(name: str, **changes: Any) -> Path:
        sources = {part: {"path": str(path), "limit": LIMIT} for part, path in hub_data.items()}
        changes = {"dataset_prepared_path": str(prepared), **changes}
        return cpu_recipe(name, llama_dir, sources, tmp_path, **changes)

    return write


@pytest.fixture
def axolotl_process(one_thread: None) -> Iterator[None]:
    """Undo what Axolotl changes in a process, which it expects to end with the run."""
    pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")
    import torch
    import transformers.modelcard
    from accelerate.state import AcceleratorState, GradientState
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.tee import close_debug_log

    environment = dict(os.environ)
    hook, interrupt = sys.excepthook, signal.getsignal(signal.SIGINT)
    comment = transformers.modelcard.AUTOGENERATED_TRAINER_COMMENT
    # A tee would hold on to the stream that pytest captures this test with.
    os.environ["AXOLOTL_TEE_STDOUT"] = "0"
    # torchao compiles its optimizer, which takes a CPU more than a minute.
    with torch.compiler.set_stance("force_eager"):
        yield
    PluginManager.get_instance().plugins.clear()
    close_debug_log()
    logging.captureWarnings(False)
    transformers.modelcard.AUTOGENERATED_TRAINER_COMMENT = comment
    signal.signal(signal.SIGINT, interrupt)
    sys.excepthook = hook
    os.environ.clear()
    os.environ.update(environment)
    # Not the PartialState beneath them: Axolotl keeps hold of it.
    AcceleratorState._reset_state()
    GradientState._reset_state()


@pytest.fixture
def load(axolotl_process: None) -> Callable[[Path], tuple[Any, Any]]:
    """Gives a recipe's settings and data, by the steps of `axolotl train`."""
    from axolotl.cli.config import load_cfg
    from axolotl.integrations.base import PluginManager

    def load_recipe(recipe: Path) -> tuple[Any, Any]:
        cfg = load_cfg(str(recipe))
        return cfg, PluginManager.get_instance().load_datasets(cfg, preprocess=False)

    return load_recipe


class _Changed(ast.NodeTransformer):
    """Puts other values in place of keywords of calls, and of names that are assigned."""

    def __init__(self, keywords: dict[str, dict[str, Any]], names: dict[str, Any]) -> None:
        self._keywords, self._names = keywords, names

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        changes = self._keywords.get(ast.unparse(node.func), {})
        kept = [keyword for keyword in node.keywords if keyword.arg not in changes]
        node.keywords = kept + [
            ast.keyword(name, ast.parse(repr(value), mode="eval").body)
            for name, value in changes.items()
        ]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        name = ast.unparse(node.targets[0])
        if name in self._names:
            node.value = ast.Constant(self._names[name])
        return node


def run_trl_script(
    name: str,
    base: Path,
    sources: dict[str, dict[str, Any]],
    folder: Path,
    every: int = 2,
    **arguments: Any,
) -> Any:
    """Run a script of recipes/ up to training, with what has to differ on a CPU.

    Args:
        name: The script.
        base: Folder of a tiny model.
        sources: The section's `agent` and `general`.
        folder: Where its output and encoded data go.
        every: Steps between evaluations.
        arguments: Further arguments of SFTConfig.

    Returns:
        Its trainer.
    """
    pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
    text, end = (RECIPES / name).read_text("utf-8").split("trainer.train()\n")
    assert end == "trainer.save_model()\n"
    agent_task = {"type": "agent_task", "every": every, "num_tasks": 2}
    evaluators = [agent_task, {"type": "general_loss", "every": every}]
    arguments = {
        "max_steps": 2,
        "gradient_accumulation_steps": 2,
        "output_dir": str(folder / "out"),
        "logging_steps": 1,
        "bf16": False,
        **arguments,
    }
    changes = {
        "AgentTuningConfig": {**sources, "evaluators": evaluators, "holdout": 4},
        "SFTConfig": arguments,
        "BitsAndBytesConfig": {"bnb_4bit_compute_dtype": "float32"},
        "TrainingRun": {"max_length": 1024, "cache": str(folder / "prepared")},
    }
    tree = _Changed(changes, {"MODEL": str(base)}).visit(ast.parse(text))
    scope: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(tree), name, "exec"), scope)
    return scope["trainer"]


@pytest.fixture
def trl_recipe(
    llama_dir: Path, hub_data: dict[str, Path], tmp_path: Path, one_thread: None
) -> Callable[..., Any]:
    """Runs recipes/trl_sft.py up to training; takes what `run_trl_script` does."""
    sources = {name: {"path": str(path), "limit": LIMIT} for name, path in hub_data.items()}
    return partial(run_trl_script, "trl_sft.py", llama_dir, sources, tmp_path)
