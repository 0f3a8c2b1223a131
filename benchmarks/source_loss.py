"""Cost of the loss by source: steps with and without it take turns in one run.

    OMP_NUM_THREADS=1 python benchmarks/source_loss.py --agent DIR --general FILE --tokenizer DIR

The model is a Llama of two narrow layers and the tokenizer's whole vocabulary: the smaller a model
is, the larger the share of what is measured. Every step is logged, which is the most that the
reduction can cost. Each path trains twice, with the even and with the odd steps measured, because
their rows have different numbers of tokens. Figures, the first two steps left out: the ratio of
cpu-seconds of neighbouring steps, with and without, as the geometric mean of both runs' medians,
with the range of all pairs; and the share of a step's time that the plugin's own functions take,
which other jobs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import trl

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults
from agenttuning_plugin.training_data.source_loss import SourceLoss

MICRO, ACCUMULATE = 1, 2


class Alternate(transformers.TrainerCallback):  # type: ignore[misc]
    """Turns the loss by source off in every other step, and takes each step's time.

    Args:
        losses: The callback that is turned off.
        odd: Whether it is on in the odd steps, else in the even ones.
    """

    def __init__(self, losses: SourceLoss, odd: bool) -> None:
        self._losses, self._odd = losses, odd
        self._since: tuple[bool, float] | None = None
        self.seconds: list[tuple[bool, float]] = []
        self.own = 0.0
        for name in ("_next_rows", "_add", "_collect"):
            setattr(losses, name, self._timed(getattr(losses, name)))
        groups = losses._groups
        groups.layout = self._timed(groups.layout)  # type: ignore[method-assign]

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args)
            finally:
                self.own += time.process_time() - start

        return call

    def _stop(self) -> None:
        if self._since is not None:
            on, start = self._since
            self.seconds.append((on, time.process_time() - start))

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Begin a step."""
        self._stop()
        on = state.global_step % 2 == self._odd
        if on and self._losses._capture is None:
            self._losses._reset()
            self._losses._logged = state.global_step
            self._losses._install()
        elif not on:
            self._losses._uninstall()
        self._since = on, time.process_time()

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """End the last step."""
        self._stop()


def make_model(hidden: int, tokenizer: Any, adapter: bool) -> Any:
    """Return a model of two layers with random weights, with a LoRA adapter if asked for."""
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    if not adapter:
        return model
    import peft

    return peft.get_peft_model(model, peft.LoraConfig(r=16, target_modules="all-linear"))


def run_once(arguments: argparse.Namespace, loss_type: str, adapter: bool, odd: bool) -> Alternate:
    """Train and return the seconds of each step, with and without in turns."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.tokenizer)
    with tempfile.TemporaryDirectory() as out:
        args = trl.SFTConfig(
            output_dir=out,
            max_steps=arguments.steps,
            per_device_train_batch_size=MICRO,
            gradient_accumulation_steps=ACCUMULATE,
            loss_type=loss_type,
            bf16=False,
            use_cpu=True,
            report_to="none",
            logging_steps=1,
            save_strategy="no",
            gradient_checkpointing=False,
            disable_tqdm=True,
            **sft_defaults(packing=True),
        )
        sources = {"agent": arguments.agent, "general": arguments.general}
        sources["general"] = {"path": sources["general"], "limit": 400}
        config = AgentTuningConfig(eta=0.2, holdout=0, **sources)
        run = TrainingRun(
            config,
            tokenizer,
            args,
            max_length=arguments.length,
            packing=True,
            cache=arguments.cache or Path(out) / "prepared",
        )
        trainer = trl.SFTTrainer(
            make_model(arguments.hidden, tokenizer, adapter),
            args,
            train_dataset=run.train_dataset,
            data_collator=run.data_collator,
            processing_class=tokenizer,
        )
        run.attach(trainer)
        found = [c for c in trainer.callback_handler.callbacks if isinstance(c, SourceLoss)]
        alternate = Alternate(found[0], odd)
        trainer.add_callback(alternate)
        trainer.train()
    return alternate


def measure(arguments: argparse.Namespace, loss_type: str, adapter: bool) -> dict[str, Any]:
    """Return the cost of the loss by source on one path."""
    runs = [run_once(arguments, loss_type, adapter, odd) for odd in (False, True)]
    ratios = []
    for run in runs:
        on, off = (np.array([s for was, s in run.seconds[2:] if was == kind]) for kind in (1, 0))
        ratios.append(on[: len(off)] / off[: len(on)])
    steps = [s for run in runs for was, s in run.seconds if was]
    middle = math.prod(float(np.median(each)) for each in ratios) ** (1 / len(ratios))
    return {
        "loss_type": loss_type,
        "adapter": adapter,
        "pairs": sum(map(len, ratios)),
        "seconds_of_a_step": round(float(np.median(steps)), 3),
        "own_share": round(sum(run.own for run in runs) / sum(steps), 5),
        "ratio": round(middle, 4),
        "ratio_range": [round(float(f(np.concatenate(ratios))), 4) for f in (np.min, np.max)],
    }


def main() -> None:
    """Measure each path and print or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("agent", "general", "tokenizer"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = [
        measure(arguments, loss_type, adapter)
        for loss_type, adapter in (("nll", False), ("chunked_nll", True))
    ]
    result = {
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, trl)},
        "hidden": arguments.hidden,
        "length": arguments.length,
        "rows_in_a_step": MICRO * ACCUMULATE,
        "runs": runs,
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
