"""A small model behind an OpenAI-compatible server with vLLM's routes for adapters.

Run as a program with a model's folder, it prints its port and ends with its standard
input. A process of its own, as peft draws random numbers when it loads an adapter.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOP = 20
MOST_RANK = 16


@contextmanager
def serving_model(folder: Path) -> Iterator[str]:
    """Serve a model from a process of its own; yields its address, which ends in /v1."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.support.served_model", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


class Served:
    """The model, its adapters, and what was asked of them."""

    def __init__(self, folder: str) -> None:
        import torch
        import transformers

        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.adapters: dict[str, Any] = {}
        self.log: list[str] = []

    def model(self, name: str) -> Any:
        """What answers to a name, as a subject."""
        from evaluators.evaluator import EvalTarget

        return EvalTarget(self.adapters.get(name, self.base).eval(), self.tokenizer)

    def load(self, name: str, path: str) -> None:
        """Put an adapter on a copy of the base."""
        import copy

        from peft import PeftModel

        self.adapters[name] = PeftModel.from_pretrained(copy.deepcopy(self.base), path)


def make_app(served: Served) -> Any:
    """The routes."""
    import torch
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse, PlainTextResponse

    from dataset_builders.conversation import Message
    from evaluators.models.target import Decoding

    app, lock = FastAPI(), threading.Lock()
    too_long = {"message": "This model's maximum context length is 4096 tokens", "code": 400}

    def refuse(status: int, body: Any) -> Any:
        return JSONResponse({"error": body}, status_code=status)

    def decoding(asked: dict[str, Any]) -> Any:
        return Decoding(
            asked["max_tokens"],
            asked.get("temperature") or 0.0,
            asked.get("top_p", 1.0),
            tuple(asked.get("stop") or ()),
            asked.get("seed", 0),
        )

    def known(name: str) -> bool:
        return name == "base" or name in served.adapters

    @app.get("/v1/models")
    def models() -> Any:
        return {"object": "list", "data": [{"id": n, "object": "model"} for n in ["base"]]}

    @app.post("/tokenize")
    def tokenize(asked: dict[str, Any]) -> Any:
        ids = served.tokenizer.apply_chat_template(
            asked["messages"], add_generation_prompt=asked["add_generation_prompt"]
        )["input_ids"]
        return {"count": len(ids), "tokens": ids}

    @app.get("/log")
    def log() -> Any:
        return served.log

    @app.post("/v1/chat/completions")
    def chat(asked: dict[str, Any]) -> Any:
        if not known(asked["model"]):
            return refuse(404, {"message": f"The model `{asked['model']}` does not exist."})
        if forced := asked.get("logit_bias"):
            # A bias of 100 makes the token the next one; what counts is whether a turn ends there.
            ends = str(served.tokenizer.eos_token_id) in forced
            message = {"role": "assistant", "content": ""}
            reason = "stop" if ends else "length"
            return {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}
        dialogue = [Message(m["role"], m["content"]) for m in asked["messages"]]
        with lock, torch.no_grad():
            served.log.append(f"chat {asked['model']}")
            subject = served.model(asked["model"])
            (text,) = subject.language_model().chat([dialogue], decoding(asked))
            if text is None:
                return refuse(400, too_long)
            choice = {"index": 0, "message": {"role": "assistant", "content": text}}
            if asked.get("logprobs"):
                choice["logprobs"] = {"content": [first_token(subject, dialogue)]}
        return {"model": asked["model"], "choices": [choice]}

    def first_token(subject: Any, dialogue: Any) -> Any:
        prompt = subject.language_model().prompt_ids(dialogue)
        everything = range(len(subject.tokenizer))
        (values,) = subject.tokens().next_logprobs([prompt], everything)
        best = sorted(everything, key=lambda i: -values[i])[:TOP]
        return {
            "top_logprobs": [
                {"token": subject.tokenizer.decode([i]), "logprob": values[i]} for i in best
            ]
        }

    @app.post("/v1/completions")
    def complete(asked: dict[str, Any]) -> Any:
        with lock, torch.no_grad():
            model = served.model(asked["model"]).language_model()
            (text,) = model.continue_text([asked["prompt"]], decoding(asked))
        return (
            {"choices": [{"index": 0, "text": text}]} if text is not None else refuse(400, too_long)
        )

    @app.post("/v1/load_lora_adapter")
    def load(asked: dict[str, Any]) -> Any:
        name = asked["lora_name"]
        if name in served.adapters:
            return refuse(400, {"message": f"The lora adapter '{name}' has already been loaded."})
        if not (Path(asked["lora_path"]) / "adapter_config.json").is_file():
            return refuse(404, {"message": f"No adapter found for '{name}'."})
        config = json.loads((Path(asked["lora_path"]) / "adapter_config.json").read_text("utf-8"))
        if config["r"] > MOST_RANK:
            told = f"LoRA rank {config['r']} is greater than max_lora_rank {MOST_RANK}."
            return refuse(500, {"message": told})
        if not (Path(asked["lora_path"]) / "adapter_model.safetensors").is_file():
            return refuse(500, {"message": "<path> doesn't contain tensors"})
        with lock:
            served.load(name, asked["lora_path"])
            served.log.append(f"load {name}")
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    def unload(asked: dict[str, Any]) -> Any:
        if served.adapters.pop(asked["lora_name"], None) is None:
            return refuse(404, {"message": f"The lora adapter '{asked['lora_name']}' is unknown."})
        served.log.append(f"unload {asked['lora_name']}")
        return PlainTextResponse("Success")

    return app


def main() -> None:
    import uvicorn

    app = make_app(Served(sys.argv[1]))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)  # Requests wait until the server is up.
    print(listening.getsockname()[1], flush=True)

    def end() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
