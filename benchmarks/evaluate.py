"""How fast episodes are played by a model in this process, and what makes the difference.

`python benchmarks/evaluate.py` plays the same episodes, greedily:

1. one by one: a batch of one, `model.generate` on the whole dialogue at every turn;
2. in batches by the library: `model.generate` on whole dialogues, padded on the left;
3. in batches by the library's continuous batching, `model.generate_batch`;
4. in batches by our engine, without reuse of what was read before;
5. in batches by our engine, with it: as evaluators do;
6. with `--endpoint URL`, by a server that speaks OpenAI's protocol, such as vLLM.

It prints the ratio of 1 to each in wall-clock and CPU time, and whether all turns are the
same. Ways 1 to 5 take turns in `--repeats` rounds and each counts with its best one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from dataset_builders.conversation import Message
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.model_policies import AnswerTurns, BatchingPolicy
from dataset_builders.rollouts.play import play
from evaluators.evaluator import EvalTarget
from evaluators.models.chat_model import LocalModel
from evaluators.models.eval_mode import evaluation_mode
from evaluators.tasks.agent_task import answer_turns

MODEL = Path("~/.cache/agenttuning/SmolLM2-135M-Instruct")

BLOCK = 32
"""Tokens of a block of the cache of `generate_batch`."""

BATCH_TOKENS = 1024
"""Most tokens of one of its forward passes."""


def local_model(subject: EvalTarget, *, reuse: bool = True) -> LocalModel:
    """The model as one that answers, with or without what it has read before."""
    return LocalModel(subject.tokens(reuse=reuse), subject.tokenizer)


class Generate:
    """The library's `generate` on whole dialogues, one call for all of them."""

    def __init__(self, subject: EvalTarget, max_new_tokens: int) -> None:
        self.model, self.tokenizer = subject.model, subject.tokenizer
        self._limit = max_new_tokens
        self._local = local_model(subject)  # Renders and encodes the prompt.

    def __call__(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
    ) -> list[str | None]:
        """See `AnswerTurns`."""
        prompts = [self._local.prompt_ids(dialogue) for dialogue in dialogues]
        config = transformers.GenerationConfig(  # A model's own may say otherwise.
            do_sample=False,
            max_new_tokens=min(max_new_tokens, self._limit),
            eos_token_id=self.model.generation_config.eos_token_id,
            pad_token_id=self.tokenizer.eos_token_id,
        )
        answers = self.answers(prompts, config)
        return [self.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]

    def answers(
        self, prompts: list[list[int]], config: transformers.GenerationConfig
    ) -> list[list[int]]:
        """The new tokens of each prompt."""
        width = max(map(len, prompts))
        rows = [[config.pad_token_id] * (width - len(ids)) + ids for ids in prompts]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        device = self.model.device
        out = self.model.generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=config,
        )
        found: list[list[int]] = out[:, width:].tolist()
        return found


class GenerateBatch(Generate):
    """The library's continuous batching, with a cache of exactly what the prompts need."""

    def answers(
        self, prompts: list[list[int]], config: transformers.GenerationConfig
    ) -> list[list[int]]:
        """See `Generate.answers`."""
        blocks = sum(-(-(len(ids) + config.max_new_tokens) // BLOCK) for ids in prompts)
        found = self.model.generate_batch(
            inputs=prompts,
            generation_config=config,
            continuous_batching_config=transformers.ContinuousBatchingConfig(
                block_size=BLOCK, num_blocks=blocks + 1, max_batch_tokens=BATCH_TOKENS
            ),
            progress_bar=False,
            warmup=False,
        )
        return [output.generated_tokens for output in found.values()]


class Server:
    """A policy behind an endpoint, asked for all dialogues at once."""

    def __init__(self, url: str, model: str, max_new_tokens: int) -> None:
        import openai

        self._client = openai.OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "-"))
        self._model, self._limit = model, max_new_tokens

    def __call__(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
    ) -> list[str | None]:
        """See `AnswerTurns`."""
        limit = min(max_new_tokens, self._limit)

        def turn(dialogue: Sequence[Message]) -> str:
            messages: Any = [{"role": m.role, "content": m.content} for m in dialogue]
            answer = self._client.chat.completions.create(
                model=self._model, messages=messages, temperature=0, max_tokens=limit
            )
            return (answer.choices[0].message.content or "").strip()

        with ThreadPoolExecutor(len(dialogues)) as pool:
            return list(pool.map(turn, dialogues))


@dataclass
class Way:
    """One way of playing, and what it took."""

    name: str
    batch_size: int
    wall: float = float("inf")
    cpu: float = float("inf")
    turns: int = 0
    same: int = 0


def said(trajectory: Trajectory) -> list[str]:
    """The model's turns."""
    return [message.content for message in trajectory.messages if message.trained]


def measure(
    way: Way, make: Callable[[], AnswerTurns], environment: EnvironmentSpec, tasks: Sequence[str]
) -> list[Trajectory]:
    """Play the tasks once; the best time counts."""
    wall, cpu = time.monotonic(), time.process_time()
    played = play(environment, tasks, BatchingPolicy(make()), batch_size=way.batch_size)
    way.wall = min(way.wall, time.monotonic() - wall)
    way.cpu = min(way.cpu, time.process_time() - cpu)
    way.turns = sum(trajectory.num_rounds for trajectory in played)
    return played


def local(options: argparse.Namespace) -> list[Way]:
    """Ways 1 to 5, and 6 where asked for."""
    environment = load_environment(options.environment)
    tasks = environment.task_ids(options.split)[: options.episodes]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.model.expanduser(), dtype=getattr(torch, options.dtype)
    ).to(options.device)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model.expanduser())
    subject, limit = EvalTarget(model, tokenizer), options.max_new_tokens
    ways: list[tuple[Way, Callable[[], AnswerTurns]]] = [
        (Way("generate, one by one", 1), lambda: Generate(subject, limit)),
        (Way("generate, left-padded", options.batch_size), lambda: Generate(subject, limit)),
        (Way("generate_batch", options.batch_size), lambda: GenerateBatch(subject, limit)),
        (
            Way("ours, nothing reused", options.batch_size),
            lambda: answer_turns(local_model(subject, reuse=False), limit),
        ),
        (
            Way("ours, prefixes reused", options.batch_size),
            lambda: answer_turns(local_model(subject), limit),
        ),
    ]
    if options.endpoint:
        served = Server(options.endpoint, options.endpoint_model, limit)
        ways.append((Way("endpoint", options.batch_size), lambda: served))
    for _, make in ways:  # Loads and compiles what is loaded and compiled once.
        with evaluation_mode(subject):
            play(environment, tasks[:1], BatchingPolicy(make()), batch_size=1)
    expected: list[list[str]] = []
    for _ in range(options.repeats):
        for way, make in ways:
            with evaluation_mode(subject):
                found = [said(one) for one in measure(way, make, environment, tasks)]
            expected = expected or found
            way.same = sum(a == b for a, b in zip(found, expected, strict=True))
    return [way for way, _ in ways]


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Where and with what it was measured."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "platform": platform.platform(),
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "gpu": torch.cuda.get_device_name() if options.device == "cuda" else "",
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "settings": {key: str(value) for key, value in vars(options).items() if key != "out"},
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--environment", default="database")
    parser.add_argument("--split", default="test")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--endpoint", default="", help="URL of a server, such as vLLM's")
    parser.add_argument("--endpoint-model", default="")
    parser.add_argument("--out", type=Path, help="file to write the figures to, as JSON")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    report = describe(options)
    ways = local(options)
    first = ways[0]
    for way in ways:
        print(
            f"{way.name:28} {way.wall:8.1f} s, CPU {way.cpu:8.1f} s, {way.turns} turns: "
            f"{first.wall / way.wall:5.2f} x (CPU {first.cpu / way.cpu:5.2f} x), "
            f"{way.same} of {options.episodes} episodes say the same",
            flush=True,
        )
    report["ways"] = [
        asdict(way) | {"ratio_wall": first.wall / way.wall, "ratio_cpu": first.cpu / way.cpu}
        for way in ways
    ]
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
