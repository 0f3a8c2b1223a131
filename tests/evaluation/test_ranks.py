"""Two real processes under data parallelism (gloo, CPU): tasks divided, figures the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys, warnings
import torch, transformers
from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.tokens import Encoder, encode_dataset
from evaluators import AgentTaskEvaluator, EvaluatorCallback, GeneralLossEvaluator, Schedule

model_dir, output = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
talks = [
    Conversation.create([Message("user", f"{i}?"), Message("assistant", f"{i}!" * 3, True)])
    for i in range(16)
]
rows = encode_dataset(talks, Encoder(tokenizer, max_length=512)).dataset
arguments = transformers.TrainingArguments(
    output_dir=output, max_steps=2, per_device_train_batch_size=1, save_strategy="no",
    report_to=[], use_cpu=True, seed=5, disable_tqdm=True, learning_rate=0.0,
)
trainer = transformers.Trainer(
    transformers.AutoModelForCausalLM.from_pretrained(model_dir), arguments,
    data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
    train_dataset=rows, processing_class=tokenizer,
)
# Three tasks and five conversations: one process has more to do than the other.
EvaluatorCallback.install(trainer, [
    Schedule(AgentTaskEvaluator("database", num_tasks=3, max_new_tokens=4)),
    Schedule(GeneralLossEvaluator(rows.select(range(5)))),
])
trainer.train()
print("world", trainer.accelerator.num_processes)
"""


def run(processes: int, script: Path, model: Path, output: Path) -> list[dict[str, Any]]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [*launcher, str(script), str(model), str(output)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"world {processes}" in done.stdout
    lines = (output / "evaluations.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_two_processes_find_what_one_finds(tiny_model_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, "utf-8")
    alone = run(1, script, tiny_model_dir, tmp_path / "alone")
    together = run(2, script, tiny_model_dir, tmp_path / "together")
    assert [(row["step"], row["evaluator"]) for row in together] == [
        (row["step"], row["evaluator"]) for row in alone
    ]
    for one, two in zip(alone, together, strict=True):
        assert [r["item"] for r in one["records"]] == [r["item"] for r in two["records"]]
        for name, metric in one["metrics"].items():
            assert two["metrics"][name]["value"] == pytest.approx(metric["value"], rel=1e-5)
            assert two["metrics"][name]["n"] == metric["n"]
