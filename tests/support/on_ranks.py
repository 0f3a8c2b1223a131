"""Trains a tiny model on several processes with and without evaluators; started by torchrun.

    on_ranks.py MODES MODEL_DIR OUTPUT

MODES are some of ddp, fsdp1, fsdp2, fsdp1-lora, fsdp2-lora, and zero3, with commas. Process 0
writes OUTPUT/MODE.json: what each evaluator found, how the model was called, and whether the
weights are the same as without evaluators, bit by bit and on all processes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
import transformers.integrations.deepspeed
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, gather_object
from datasets import Dataset

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.tokens import Encoder, encode_dataset
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.base import ResetResult
from dataset_builders.environments.database.dialogue import DatabaseDialogue
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.environments.prompts import Prompt
from evaluators.evaluator import EvalTarget, Evaluator, Record
from evaluators.models.sharded import ShardedForward
from evaluators.models.target import Decoding
from evaluators.runner import run_evaluator
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.general_loss import GeneralLossEvaluator
from evaluators.tasks.item_order import fixed_order
from evaluators.training.trainer_target import subject_of


class BrittleEnvironment(DatabaseEnvironment):
    """Breaks at the second task that is played."""

    name = "brittle"

    def task_ids(self, split: str) -> tuple[str, ...]:
        return tuple(each.replace("database", self.name) for each in super().task_ids(split))

    def _begin(self, task_id: str) -> ResetResult:
        if task_id == fixed_order(self.task_ids("test"))[1]:
            raise RuntimeError("the world broke")
        return super()._begin(task_id.replace(self.name, "database"))


class BrittleDialogue(DatabaseDialogue):
    world = BrittleEnvironment

    @classmethod
    def own_prompt(cls) -> Prompt:
        return DatabaseDialogue.own_prompt()


class Asking(Evaluator):
    """Item "k" asks the model for k turns, one of which is longer, and for odds."""

    suite = "general"
    primary = "length"

    def __init__(
        self, name: str, items: Sequence[str], fault: Callable[[str, Any], Any] | None = None
    ) -> None:
        self.name = name
        self._items = tuple(items)
        self._fault = fault

    def items(self) -> tuple[str, ...]:
        return self._items

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        model: Any = subject.language_model()
        for item in items:
            talk = [Message("user", f"{item}?")]
            said = "".join(
                turn or ""
                for k in range(int(item))
                for turn in model.chat([talk], Decoding(max_new_tokens=2 + 9 * (k == 1)))
            )
            record: Record = {"item": item, "scores": {"length": float(len(said))}, "error": ""}
            if self._fault is not None:
                record["fault"] = self._fault(item, model)
            (odds,) = model.next_token_logprobs([talk], ["A", "B"])
            record["scores"]["odds"] = odds[0] - odds[1]
            finished(record)


class Halved(Asking):
    """Only process 0 has its data."""

    def items(self) -> tuple[str, ...]:
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            raise FileNotFoundError("there is no such file")
        return self._items


def environment_breaks(item: str, model: Any) -> None:
    if item == "2":
        raise OSError("the world is gone")


def generation_fails(item: str, model: Any) -> None:
    if item == "2":
        model._tokens.generate([[10**6]], Decoding(max_new_tokens=4), [0])


def cannot_be_sent(item: str, model: Any) -> Any:
    return model if item == "2" else None


def panel(rows: Dataset) -> list[Evaluator]:
    """With two processes, item 2 of three is process 1's, and the longest one is process 0's."""
    brittle = EnvironmentSpec("brittle", place="on_ranks:BrittleDialogue")
    return [
        AgentTaskEvaluator("database", num_tasks=3, max_new_tokens=4),
        AgentTaskEvaluator(brittle, num_tasks=4, max_new_tokens=4),
        GeneralLossEvaluator(rows.select(range(5))),
        Asking("uneven", ["4", "1", "6", "3", "5"]),
        Asking("nothing_to_do", ["3"]),
        Asking("measure_raises", ["4", "2", "3"], environment_breaks),
        Asking("generation_fails", ["4", "2", "3"], generation_fails),
        Asking("not_sendable", ["4", "2", "3"], cannot_be_sent),
        Halved("no_data", ["4", "2", "3"]),
        Asking("after_all", ["2", "4"]),
    ]


class Panel(transformers.TrainerCallback):
    """Runs the evaluators before the first step and after the second one."""

    def __init__(self, trainer: transformers.Trainer, evaluators: Sequence[Evaluator]) -> None:
        self.found: list[dict[str, Any]] = []
        self._trainer, self._evaluators = trainer, evaluators

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._run(self._evaluators)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            self._run(self._evaluators[:3])

    def _run(self, evaluators: Sequence[Evaluator]) -> None:
        for evaluator in evaluators:
            subject = subject_of(self._trainer, timeout=60)
            row: dict[str, Any] = {"name": evaluator.name, "error": ""}
            if subject.in_step is not None:
                row["calls"] = calls_of(subject.in_step)
            try:
                result = run_evaluator(evaluator, subject)
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"
            else:
                row["metrics"] = {key: metric.value for key, metric in result.metrics.items()}
                row["records"] = [dict(record) for record in result.records]
            self.found.append(row)


def calls_of(step: ShardedForward) -> list[int]:
    """Counts from here on the calls of a process, and those of others that it joined."""
    counts, call = [0, 0], step._call

    def counted(arguments: dict[str, Any]) -> Any:
        joined = arguments["input_ids"].numel() == 1 and not arguments["use_cache"]
        counts[joined] += 1
        return call(arguments)

    step._call = counted  # type: ignore[method-assign]
    return counts


def make_trainer(mode: str, model_dir: str, rows: Dataset, output: Path) -> transformers.Trainer:
    transformers.integrations.deepspeed.unset_hf_deepspeed_config()  # Of the run before this,
    AcceleratorState._reset_state()  # as this.
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        model_dir, attention_dropout=0.1, dtype=torch.float32
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    with torch.no_grad():
        model.get_input_embeddings().weight[:5] = 0  # Control tokens, which are not text.
        model.model.norm.weight[::2] = -1  # Or it would say its last token again and again.
    if mode.endswith("lora"):
        import peft

        transformers.set_seed(3)
        settings = peft.LoraConfig(lora_dropout=0.1, target_modules="all-linear")
        model = peft.get_peft_model(model, settings)
    zero3: Any = {
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "zero_allow_untested_optimizer": True,
    }
    arguments = transformers.TrainingArguments(
        output_dir=str(output),
        max_steps=3,
        per_device_train_batch_size=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        seed=5,
        disable_tqdm=True,
        learning_rate=1e-2,
        deepspeed=zero3 if mode == "zero3" else None,
    )
    collator = transformers.DataCollatorForSeq2Seq(tokenizer)
    trainer = transformers.Trainer(
        model, arguments, data_collator=collator, train_dataset=rows, processing_class=tokenizer
    )
    if mode.startswith("fsdp"):
        shard(trainer, version=int(mode[4]))
    return trainer


def shard(trainer: Any, version: int) -> None:
    """Accelerate takes FSDP on accelerators only; past that door, all of it runs on the CPU."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=version,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        reshard_after_forward=True if version == 2 else "FULL_SHARD",
        use_orig_params=True,
    )
    shared = trainer.accelerator.state._shared_state
    shared["distributed_type"] = DistributedType.FSDP
    shared["fsdp_plugin"] = plugin
    shared["device"] = torch.device("cpu")  # FSDP 1 takes no number of it.
    trainer.is_fsdp_enabled = True


def digest(model: Any) -> str:
    """Of this process's share of all weights."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        value = getattr(parameter, "ds_tensor", parameter)
        value = value.to_local() if hasattr(value, "to_local") else value
        found.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def train(
    mode: str, model_dir: str, output: Path, evaluates: bool
) -> tuple[list[dict[str, Any]], str]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    talks = [
        Conversation.create([Message("user", f"{i}?"), Message("assistant", f"{i}!" * 3, True)])
        for i in range(16)
    ]
    rows = encode_dataset(talks, Encoder(tokenizer, max_length=512)).dataset
    trainer = make_trainer(mode, model_dir, rows, output)
    callback = Panel(trainer, panel(rows) if evaluates else [])
    trainer.add_callback(callback)
    trainer.train()
    return callback.found, digest(trainer.model_wrapped)


def main(mode: str, model_dir: str, output: Path) -> None:
    found, digest = train(mode, model_dir, output, evaluates=True)
    _, plain = train(mode, model_dir, output, evaluates=False)
    same = [digest == plain]
    if torch.distributed.is_initialized():
        same = gather_object(same)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        told = {"same_weights": same, "found": found}
        (output / f"{mode}.json").write_text(json.dumps(told, default=repr), "utf-8")


if __name__ == "__main__":
    for each in sys.argv[1].split(","):
        main(each, sys.argv[2], Path(sys.argv[3]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
