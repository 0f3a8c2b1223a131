"""How far does replay foretell rollouts? One training run, both measured at many steps.

    agenttuning demo --prepare
    python benchmarks/replay_calibration.py [--steps 84] [--every 7] [--tasks 32] [--out FOLDER]

The demo's model is trained on the demo's mix (plain TRL, not packed: batches of
conversations). At each point the model plays tasks, and reads the oracle's trajectories of
other tasks of the same split, which no training data come from. Printed: the points, and
Pearson's and Spearman's correlation of each replay figure with the success of rollouts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path("~/.cache/agenttuning").expanduser()
READ = 32  # trajectories
FIGURES = ("action_match", "action_logprob", "first_divergence", "parsable", "turn_logprob")


def train(out: Path, steps: int, every: int, tasks: int) -> None:
    """Train, measuring rollouts and replay at step 0, every few steps and at the end."""
    import torch
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from agenttuning_plugin import AgentTaskEvaluator, EvaluatorCallback, Schedule, build_mix
    from agenttuning_plugin.evaluation.model_loading import load_tokenizer
    from dataset_builders.environments import load_environment
    from evaluators.tasks.replay import ReplayEvaluator, oracle_trajectories

    model = str(CACHE / "SmolLM2-135M-Instruct")
    tokenizer = load_tokenizer(model)
    batch = 5  # conversations: about one packed row of the demo
    rows = build_mix(
        str(CACHE / "demo-agent.jsonl"),
        str(CACHE / "demo-general.jsonl"),
        eta=0.2,
        num_examples=steps * batch,
        tokenizer=tokenizer,
        max_length=512,
    )
    new = "activation_checkpointing"  # Its name from transformers 5.23 on.
    checkpointing = new if hasattr(SFTConfig, new) else "gradient_checkpointing"
    settings = SFTConfig(
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=batch,
        learning_rate=3e-3, lr_scheduler_type="cosine", warmup_steps=4, adam_beta2=0.95,
        bf16=torch.cuda.is_available(), report_to="none", save_strategy="no", logging_steps=every,
        train_sampling_strategy="sequential", **{checkpointing: False},
        dataset_kwargs={"skip_prepare_dataset": True}, seed=42,
    )  # fmt: skip
    trainer = SFTTrainer(
        model,
        settings,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )
    environment = load_environment("database")
    rollouts = AgentTaskEvaluator(environment, num_tasks=tasks, batch_size=tasks, max_new_tokens=80)
    # Other tasks than those played: the last of the split.
    others = oracle_trajectories(environment, 200)[-READ:]
    EvaluatorCallback.install(
        trainer, [Schedule(e, every=every) for e in (ReplayEvaluator(others), rollouts)]
    )
    trainer.train()


def points(out: Path) -> list[dict[str, Any]]:
    """Both measurements at each step."""
    found: dict[int, dict[str, Any]] = {}
    for line in (out / "evaluations.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        point = found.setdefault(row["step"], {"step": row["step"]})
        values = {name: metric["value"] for name, metric in row["metrics"].items()}
        if row["evaluator"] == "replay":
            point |= {name: values[name] for name in FIGURES if name in values}
            point["replay seconds"] = row["seconds"]
        else:
            point |= {"success": values["success"], "rollout seconds": row["seconds"]}
    return [point for point in found.values() if "success" in point and "action_match" in point]


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values sharing the mean of theirs."""
    order = [[float((values < v).sum()), float((values <= v).sum())] for v in values]
    return np.array([(low + high + 1) / 2 for low, high in order])


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; not a number where one does not vary."""
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def report(measured: list[dict[str, Any]]) -> None:
    """Print the points and the correlations."""
    names = ["step", "success", *FIGURES, "replay seconds", "rollout seconds"]
    print("  ".join(names))
    for point in measured:
        print("  ".join(f"{point.get(name, float('nan')):.3f}" for name in names))
    success = np.array([point["success"] for point in measured])
    print(f"\ncorrelation with rollout success over {len(measured)} points: Pearson, Spearman")
    for name in FIGURES:
        values = np.array([point[name] for point in measured])
        pearson, spearman = correlation(values, success), correlation(ranks(values), ranks(success))
        print(f"{name:18} {pearson:+.3f} {spearman:+.3f}")


def main() -> None:
    """Run it."""
    import peft
    import torch
    import transformers
    import trl

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=84)
    parser.add_argument("--every", type=int, default=7)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("outputs/replay-calibration"))
    given = parser.parse_args()
    versions = {m.__name__: m.__version__ for m in (torch, transformers, trl, peft)}
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}")
    print(f"{versions}\n{given.steps} steps, {given.tasks} tasks played, {READ} trajectories read")
    train(given.out, given.steps, given.every, given.tasks)
    report(points(given.out))


if __name__ == "__main__":
    main()
