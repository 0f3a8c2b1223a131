"""Loss by source: of the forward passes of training, to the bit without an effect on them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults  # noqa: E402
from agenttuning_plugin.reports.source_loss import (  # noqa: E402
    LOSS_FILE,
    loss_at,
    loss_line,
    read_losses,
)
from agenttuning_plugin.training_data.source_loss import PREFIX  # noqa: E402
from agenttuning_plugin.training_data.source_loss_capture import LossCapture  # noqa: E402
from dataset_builders.encoding.token_rows import IGNORE_INDEX  # noqa: E402
from tests.support.trainer_settings import checkpointing  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
LENGTH, STEPS, BATCH = 96, 4, 4
KINDS = ["trl", "axolotl"]
KEYS = {"agent", "agent/os", "agent/db", "general", "general/source/chat", "general/source/more"}

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # Axolotl imports that part of TRL


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Any]:
    """Agent data of two tasks in one file, general data in two files."""

    def write(name: str, tasks: list[str], number: int) -> str:
        path = tmp_path / f"{name}.jsonl"
        rows = [
            {
                "task": tasks[i % len(tasks)],
                "messages": [
                    {"role": "user", "content": f"what is {i}?"},
                    {"role": "assistant", "content": f"{name} {i} " * (1 + i % 7)},
                ],
            }
            for i in range(number)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return str(path)

    general = [write("chat", [""], 30), write("more", [""], 20)]
    return {"eta": 0.5, "holdout": 0, "agent": write("agent", ["os", "db"], 12), "general": general}


@pytest.fixture
def make(tiny_model_dir: Path, sources: dict[str, Any], tmp_path: Path) -> Make:
    """Makes a run with its trainer: TRL's, or Axolotl's as its builder makes it."""

    def trainer_of(
        kind: str = "trl",
        cut: tuple[int, int] = (2, 2),
        packing: bool = False,
        keys: dict[str, Any] | None = None,
        peft: Any = None,
        **more: Any,
    ) -> Any:
        settings = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": STEPS,
            "per_device_train_batch_size": cut[0],
            "gradient_accumulation_steps": cut[1],
            "learning_rate": 1e-2,
            "bf16": False,
            "use_cpu": True,
            "report_to": "none",
            "logging_steps": 1,
            "save_strategy": "no",
            "seed": 5,
            "disable_tqdm": True,
        }
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        if kind == "trl":
            trl = pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
            settings |= {**checkpointing(trl.SFTConfig, False), **sft_defaults(packing=packing)}
            args, trainer_class = trl.SFTConfig(**settings | more), trl.SFTTrainer
        else:
            pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")
            from axolotl.core.trainers.base import AxolotlTrainer
            from axolotl.core.training_args import AxolotlTrainingArguments

            settings |= {"curriculum_sampling": True, "average_tokens_across_devices": False}
            settings["remove_unused_columns"] = False
            args, trainer_class = AxolotlTrainingArguments(**settings | more), AxolotlTrainer
        config = AgentTuningConfig(**sources, **keys or {})
        cache = tmp_path / "prepared"
        run = TrainingRun(config, tokenizer, args, max_length=LENGTH, packing=packing, cache=cache)
        collator = run.data_collator
        if kind == "axolotl" and collator is None:
            collator = transformers.DataCollatorForTokenClassification(tokenizer)
        if peft is not None:
            import peft as library

            model = library.get_peft_model(model, peft)
        trainer = trainer_class(
            model,
            args,
            train_dataset=run.train_dataset,
            data_collator=collator,
            processing_class=tokenizer,
        )
        run.attach(trainer)
        return run, trainer

    return trainer_of


def logs(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def weights(trainer: Any) -> dict[str, Any]:
    return {name: each.detach().clone() for name, each in trainer.model.named_parameters()}


def loss_types() -> list[str]:
    sft_trainer = pytest.importorskip("trl.trainer.sft_trainer")
    chunked = hasattr(sft_trainer, "_chunked_cross_entropy_loss")  # TRL 1.9 to 1.14
    return ["nll", "chunked_nll"] if chunked else ["nll"]


@torch.no_grad()  # type: ignore[untyped-decorator]
def expected(
    run: TrainingRun, model: Any, step: int, dft: bool = False
) -> dict[str, tuple[float, int]]:
    """Sum of losses and number of trained tokens of a step by group, one conversation at a time."""
    order, prepared = run.planned.order, run.prepared
    rows = range(step * BATCH, (step + 1) * BATCH)
    sides = {"agent": (prepared.agent, prepared.agent_index)}
    sides["general"] = (prepared.general, prepared.general_index)
    found: dict[str, list[float]] = {}
    members = run.train_dataset.data["rows"].to_pylist() if run.packing else None
    sequence = run.planned.row_sequence().tolist()
    for place in rows:
        for number in members[place] if members else [sequence[place]]:
            side = "agent" if number < order.num_agent else "general"
            data, index = sides[side]
            number -= 0 if side == "agent" else order.num_agent
            row, facts = data[number], index.slice(number, 1).to_pylist()[0]
            ids, labels = (torch.tensor(row[name]) for name in ("input_ids", "labels"))
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.double(), labels[1:], reduction="none", ignore_index=IGNORE_INDEX
            )
            if dft:  # arXiv 2508.05629, equation 9
                loss = loss * (-loss).exp()
            count = int((labels[1:] != IGNORE_INDEX).sum())
            name = f"agent/{facts['task']}"
            if side == "general":
                name = f"general/source/{('chat', 'more')[facts['entry']]}"
            for key in (side, name):
                each = found.setdefault(key, [0.0, 0])
                each[0] += float(loss.sum())
                each[1] += count
    return {key: (total, int(count)) for key, (total, count) in found.items()}


@pytest.mark.parametrize("packing", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("cut", [(4, 1), (1, 4), (2, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_each_groups_loss_is_the_mean_of_its_tokens(
    make: Make, kind: str, cut: tuple[int, int], packing: bool
) -> None:
    run, trainer = make(kind, cut, packing, learning_rate=0.0)
    trainer.train()
    found = logs(trainer)
    assert len(found) == STEPS
    seen = set()
    for step, entry in enumerate(found):
        wanted = expected(run, trainer.model.eval(), step)
        groups = {k.removeprefix(PREFIX): v for k, v in entry.items() if k.startswith(PREFIX)}
        assert groups == pytest.approx({k: s / n for k, (s, n) in wanted.items()}, rel=1e-5)
        total = sum(wanted[side][0] for side in ("agent", "general") if side in wanted)
        tokens = sum(wanted[side][1] for side in ("agent", "general") if side in wanted)
        assert entry["loss"] == pytest.approx(total / tokens, rel=1e-4)
        seen |= set(groups)
    assert seen == KEYS


@pytest.mark.parametrize("packing", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_dft_each_group_has_the_loss_that_is_minimised(
    make: Make, kind: str, packing: bool
) -> None:
    more: dict[str, Any] = {"loss_type": "dft"} if kind == "trl" else {}
    run, trainer = make(kind, packing=packing, learning_rate=0.0, **more)
    function = None
    if kind == "axolotl":
        losses = pytest.importorskip("axolotl.monkeypatch.loss.dft", reason="Axolotl 0.20")
        function = trainer.compute_loss_func = losses.dft_loss
    trainer.train()
    assert function in (None, trainer.compute_loss_func)
    for step, entry in enumerate(logs(trainer)):
        wanted = expected(run, trainer.model.eval(), step, dft=True)
        groups = {k.removeprefix(PREFIX): v for k, v in entry.items() if k.startswith(PREFIX)}
        assert groups == pytest.approx({k: s / n for k, (s, n) in wanted.items()}, rel=1e-5)
    rows = read_losses(Path(trainer.args.output_dir))
    for row, entry in zip(rows, logs(trainer), strict=True):
        parts = sum(row["groups"][side]["part"] for side in ("agent", "general"))
        assert parts == pytest.approx(entry["loss"], rel=1e-4 if kind == "axolotl" else 1e-6)


@pytest.mark.filterwarnings("ignore:.label_smoothing_factor. is deprecated")
def test_with_another_loss_nothing_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("axolotl.agenttuning").propagate = True
    _, trainer = make("trl", label_smoothing_factor=0.1, loss_type="nll", max_steps=1)
    trainer.train()
    assert "the trainer has a loss function of its own" in caplog.text
    assert not any(key.startswith(PREFIX) for entry in logs(trainer) for key in entry)


@pytest.mark.parametrize("packing", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_add_up_to_the_logged_total(make: Make, kind: str, packing: bool) -> None:
    _, trainer = make(kind, packing=packing, logging_steps=2)
    trainer.train()
    rows = read_losses(Path(trainer.args.output_dir))
    assert [row["step"] for row in rows] == [2, 4]
    for row, entry in zip(rows, logs(trainer), strict=True):
        groups = row["groups"]
        parts = sum(groups[side]["part"] for side in ("agent", "general"))
        assert parts == pytest.approx(entry["loss"], rel=1e-4 if kind == "axolotl" else 1e-6)
        tasks = [g for name, g in groups.items() if name.startswith("agent/")]
        assert sum(g["tokens"] for g in tasks) == groups["agent"]["tokens"]
        assert sum(g["part"] for g in tasks) == pytest.approx(groups["agent"]["part"])


def test_by_examples_parts_add_up_too(make: Make) -> None:
    _, trainer = make(cut=(1, 4), keys={"loss_normalization": "examples"})
    trainer.train()
    rows = read_losses(Path(trainer.args.output_dir))
    for row, entry in zip(rows, logs(trainer), strict=True):
        parts = sum(row["groups"][side]["part"] for side in ("agent", "general"))
        assert parts == pytest.approx(entry["loss"], rel=1e-5)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_keeps_every_bit(make: Make, kind: str, lora: bool) -> None:
    """On every path that a loss is computed on; TRL adds running figures of its own."""
    variants = [{"loss_type": name} for name in loss_types()] if kind == "trl" else [{}]
    for variant in variants:
        peft = None
        if lora:
            peft = pytest.importorskip("peft").LoraConfig(target_modules="all-linear")
        found = []
        for on in (True, False):
            keys = {"log_loss_by_source": on}
            torch.manual_seed(1)
            _, trainer = make(kind, packing=True, keys=keys, peft=peft, **variant)
            trainer.train()
            assert any(PREFIX + "agent" in entry for entry in logs(trainer)) == on
            assert "compute_loss" not in vars(trainer)
            assert torch.nn.functional.cross_entropy.__module__ == "torch.nn.functional"
            found.append(([entry["loss"] for entry in logs(trainer)], weights(trainer)))
        (losses, with_it), (plain, without) = found
        assert losses == plain
        assert all(torch.equal(with_it[name], without[name]) for name in without)


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({}, True),
        ({"reduction": "sum", "ignore_index": 3}, True),
        ({"reduction": "none"}, True),
        ({"weight": None, "label_smoothing": 0.0}, True),
        ({"weight": torch.arange(1.0, 8.0)}, False),
        ({"label_smoothing": 0.1}, False),
    ],
)
def test_cross_entropy_and_its_gradient_keep_every_bit(
    options: dict[str, Any], known: bool
) -> None:
    scores = torch.randn(50, 7, generator=torch.Generator().manual_seed(1))
    target = torch.randint(0, 7, (50,), generator=torch.Generator().manual_seed(2))
    target[::3] = options.get("ignore_index", IGNORE_INDEX)
    capture = LossCapture(torch.nn.Linear(1, 1))
    results = []
    for on in (False, True):
        input = scores.clone().requires_grad_()
        with capture() if on else nullcontext([]) as found:
            loss = torch.nn.functional.cross_entropy(input, target, **options)
        loss.sum().backward()
        results.append((loss, input.grad))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
    assert bool(found) == known
    if known:
        plain = torch.nn.functional.cross_entropy(scores, target.clamp(min=0), reduction="none")
        assert torch.equal(found[0].trained, target != options.get("ignore_index", IGNORE_INDEX))
        assert torch.equal(found[0].losses[found[0].trained], plain[found[0].trained])


def test_what_cannot_be_divided_is_said_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    _, trainer = make()
    own = trainer.compute_loss

    def fused(model: Any, inputs: Any, return_outputs: bool = False, **rest: Any) -> Any:
        """Like a kernel that computes the loss without logits."""
        logits = model(input_ids=inputs["input_ids"], use_cache=False).logits[:, :-1]
        labels = inputs["labels"][:, 1:].clamp(min=0)
        return (logits.logsumexp(-1) - logits.gather(-1, labels[..., None])[..., 0]).mean()

    trainer.compute_loss = fused
    with caplog.at_level(logging.WARNING, "axolotl.agenttuning"):
        trainer.train()
    assert trainer.compute_loss is fused
    assert own is not fused
    assert len(logs(trainer)) == STEPS
    assert not any(key.startswith(PREFIX) for entry in logs(trainer) for key in entry)
    said = [r.getMessage() for r in caplog.records if "loss by source" in r.getMessage()]
    assert len(said) == 1
    assert "gives no losses of tokens" in said[0]


def test_rows_in_another_order_are_noticed(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    run, trainer = make(cut=(4, 1))
    trainer.train_dataset = run.train_dataset.select(range(len(run.train_dataset) - 1, -1, -1))
    with caplog.at_level(logging.WARNING, "axolotl.agenttuning"):
        trainer.train()
    assert not any(key.startswith(PREFIX) for entry in logs(trainer) for key in entry)
    assert "trained tokens where the rows have" in caplog.text


def test_a_resumed_run_keeps_the_lines_of_its_checkpoint(make: Make, tmp_path: Path) -> None:
    _, trainer = make(save_strategy="steps", save_steps=2)
    trainer.train()
    whole = read_losses(tmp_path / "out")
    _, trainer = make(save_strategy="steps", save_steps=2)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-2"))
    resumed = read_losses(tmp_path / "out")
    assert [row["step"] for row in resumed] == [1, 2, 3, 4]
    assert resumed == whole
    _, trainer = make()
    trainer.train()
    assert (tmp_path / "out/loss_by_source.previous-1.jsonl").exists()
    assert len(read_losses(tmp_path / "out")) == STEPS


@pytest.mark.slow
def test_two_processes_log_what_one_does(
    tiny_model_dir: Path, sources: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
    script = ROOT / "tests/support/source_loss_ranks.py"
    config = tmp_path / "config.json"
    found = {}
    for world in (1, 2):
        output = tmp_path / f"out-{world}"
        settings = {"model": str(tiny_model_dir), "section": sources, "output": str(output)}
        config.write_text(json.dumps(settings), "utf-8")
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
        done = subprocess.run(
            [sys.executable, *launcher, str(script), str(config)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[world] = read_losses(output)
        log = json.loads((tmp_path / f"log-{world}.json").read_text("utf-8"))
        assert [PREFIX + "agent" in entry for entry in log[:-1]] == [True] * 3
    assert [row["step"] for row in found[2]] == [1, 2, 3]
    for one, two in zip(found[1], found[2], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert one["groups"].keys() == two["groups"].keys()
        for name, facts in one["groups"].items():
            assert two["groups"][name] == pytest.approx(facts, rel=1e-5)


def test_losses_are_read_and_shown(tmp_path: Path) -> None:
    assert read_losses(tmp_path) == []
    groups = {"agent": {"loss": 1.25, "tokens": 1200, "part": 1.0}}
    groups["general"] = {"loss": None, "tokens": 3, "part": None}  # type: ignore[dict-item]
    rows = [{"step": step, "loss": 2.0, "groups": groups} for step in (10, 20)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / LOSS_FILE).write_text(text + '{"step": 30, "lo', "utf-8")  # killed while it wrote
    assert read_losses(tmp_path) == rows
    assert loss_at(tmp_path, 9) == rows[0]
    assert loss_at(tmp_path, 10) == rows[1]
    assert loss_at(tmp_path, 20) is None
    line = "training loss logged at step 10: agent 1.2500 (1,200 tokens), general none (3 tokens)"
    assert loss_line(rows[0]) == line
