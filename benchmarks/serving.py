"""Greedy answers of a trained adapter on servers, against the evaluator in this process.

    python benchmarks/serving.py RUN [--limit 32] [--out benchmarks/results/serving.json]

RUN is the output of `make demo` (an adapter). It is merged by `agenttuning merge`, and the same
database episodes are played by: the adapter in this process (the reference), the merged model in
this process, `transformers serve` and a real vLLM with the merged model, and a real vLLM with the
base and the adapter. Each server is started with the command that `agenttuning serve` prints. For
each turn that differs: the first token that differs, and the reference's difference in logits
between its own token there and the server's.
"""

from __future__ import annotations

import argparse
import json
import platform
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agenttuning_plugin.evaluation.model_loading import load_subject, served_subject
from agenttuning_plugin.export.merge import merge_run
from agenttuning_plugin.serving.command import ServeOptions, serve_command
from agenttuning_plugin.serving.process import running, wait_until_up
from agenttuning_plugin.serving.programs import TRANSFORMERS, VLLM, find_server
from agenttuning_plugin.serving.run_folder import ServedModel, read_run
from dataset_builders.conversation import Message
from dataset_builders.encoding.coding import Coder
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.masks.chat import ChatRenderer
from evaluators.evaluator import EvalResult, EvalTarget
from evaluators.models.endpoint import EndpointModel
from evaluators.runner import run_evaluator
from evaluators.tasks.agent_task import AgentTaskEvaluator

WAYS = {
    "transformers serve, merged": (TRANSFORMERS, True),
    "vLLM, merged": (VLLM, True),
    "vLLM, base and LoRA": (VLLM, False),
}


def play(subject: EvalTarget, limit: int, max_new_tokens: int) -> EvalResult:
    """Play the first database episodes, greedily."""
    task = AgentTaskEvaluator(
        "database", num_tasks=limit, max_new_tokens=max_new_tokens, batch_size=32
    )
    return run_evaluator(task, subject)


def play_served(
    model: ServedModel, server: str, limit: int, max_new_tokens: int, log: Path
) -> tuple[EvalResult, dict[str, Any]]:
    """Play the same episodes on a server that `agenttuning serve` would start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        options = ServeOptions(port=probe.getsockname()[1])
    command = serve_command(model, find_server(server), options)
    with running(command, log) as process:
        seconds = wait_until_up(process, command, log)
        subject = served_subject(command.base_url, command.model_name, "OPENAI_API_KEY", 16)
        assert isinstance(subject.server, EndpointModel)
        try:
            subject.server.configure(Sampling())
            result = play(subject, limit, max_new_tokens)
        finally:
            subject.server.close()
    return result, {"seconds_to_start": round(seconds)}


def compare(reference: EvalResult, other: EvalResult, subject: EvalTarget) -> dict[str, Any]:
    """Compare two sets of episodes turn by turn, up to the first turn that differs in each."""
    theirs = {record["item"]: record["messages"] for record in other.records}
    found: list[dict[str, Any]] = []
    for record in reference.records:
        difference = _first_difference(record["messages"], theirs[record["item"]])
        if difference is not None:
            ours, message = difference
            where = explain(subject, ours[:-1], ours[-1]["content"], message)
            found.append({"item": record["item"], "turn": len(ours), **where})
    return {
        "episodes": len(reference.records),
        "identical": len(reference.records) - len(found),
        "success": other.metrics["success"].value,
        "differences": found,
    }


def _first_difference(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str] | None:
    """The dialogue up to the first turn that differs, and the other's turn; None if alike."""
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one["content"] != other["content"]:
            return ours[: number + 1], str(other["content"])
    return None if len(ours) == len(theirs) else (ours[: min(len(ours), len(theirs))], "")


def explain(
    subject: EvalTarget, dialogue: list[dict[str, Any]], ours: str, theirs: str
) -> dict[str, Any]:
    """Return the first token that differs between two answers, and its margin in logits."""
    import torch

    tokenizer, coder = subject.tokenizer, Coder(subject.tokenizer)
    renderer = ChatRenderer(tokenizer, subject.end_of_turn)
    messages = [Message(each["role"], each["content"]) for each in dialogue]
    prompt = list(coder.prompt_ids(renderer.render_prompt(messages)))
    end = tokenizer.convert_tokens_to_ids(renderer.end_tokens[0])
    one, other = ([*tokenizer.encode(t, add_special_tokens=False), end] for t in (ours, theirs))
    same = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    with torch.no_grad():
        ids = torch.tensor([[*prompt, *one[:same]]], device=subject.device)
        logits = subject.model(input_ids=ids).logits[0, -1].float()
    return {
        "token": same,
        "ours": tokenizer.decode([one[same]]),
        "theirs": tokenizer.decode([other[same]]),
        "margin": round(float(logits[one[same]] - logits[other[same]]), 6),
    }


def measure(run: Path, limit: int, max_new_tokens: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each way of running the model with its comparison."""
    subject = replace(load_subject(str(run)), end_of_turn=read_run(run).end_of_turn)
    reference = play(subject, limit, max_new_tokens)
    yield "adapter in this process", compare(reference, reference, subject)
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder) / "merged"
        merge_run(run, merged, dtype="float32")
        here = replace(load_subject(str(merged)), end_of_turn=subject.end_of_turn)
        result = play(here, limit, max_new_tokens)
        yield "merged in this process", compare(reference, result, subject)
        del here
        for name, (server, is_merged) in WAYS.items():
            model = read_run(run, merged if is_merged else None)
            log = Path(folder) / "server.log"
            result, facts = play_served(model, server, limit, max_new_tokens, log)
            yield name, facts | compare(reference, result, subject)


def main() -> int:
    """Measure all ways and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=80)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving.json"))
    given = parser.parse_args()
    start = time.perf_counter()
    packages = ("torch", "transformers", "peft")
    facts: dict[str, Any] = {
        "model": "SmolLM2-135M-Instruct, adapter of recipes/demo.yaml, float32",
        "max_new_tokens": given.max_new_tokens,
        "machine": f"{platform.machine()}, CPU",
        "versions": {name: version(name) for name in packages},
        "ways": {},
    }
    facts["versions"]["vllm"] = ".".join(map(str, find_server(VLLM).version))
    for name, found in measure(given.run, given.limit, given.max_new_tokens):
        print(f"{name}: {found['identical']} of {found['episodes']} identical", flush=True)
        facts["ways"][name] = found
        facts["seconds"] = round(time.perf_counter() - start)
        given.out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
