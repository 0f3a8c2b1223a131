"""The command that serves a trained model with prompts, end tokens and precision of training."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agenttuning_plugin.console import writing
from agenttuning_plugin.serving.adapter import Adapter
from agenttuning_plugin.serving.programs import TRANSFORMERS, ServerProgram
from agenttuning_plugin.serving.run_folder import GENERATION_CONFIG, ServedModel, saved_ends
from dataset_builders.errors import ConfigError
from dataset_builders.storage import replace_text

FOLDER = "serving"
"""Folder in the model's folder with the files that the server reads."""

TEMPLATE = "chat_template.jinja"

_QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}

_ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "2"}
"""Gigabytes for keys and values. By default vLLM for CPUs takes 92 % of the machine's memory, and
does not start where less is free."""


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """A server's command line.

    Attributes:
        arguments: The command.
        model_name: Name of the trained model on the server.
        base_url: Address of the server, which ends in /v1.
        variables: Environment variables, besides the user's.
        notes: Differences from training, one line each.
    """

    arguments: tuple[str, ...]
    model_name: str
    base_url: str
    variables: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The command as a line for a shell."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join([*variables, shlex.join(self.arguments)])


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options that the user sets.

    Attributes:
        host: Address to listen on.
        port: Port to listen on.
        name: Name of the model on the server; by default the folder's.
        dtype: In place of the trained one.
        max_model_len: In place of the default limit of tokens.
        extra: Further arguments for the server.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    dtype: str | None = None
    max_model_len: int | None = None
    extra: tuple[str, ...] = ()


def serve_command(model: ServedModel, server: ServerProgram, options: ServeOptions) -> ServeCommand:
    """Return the command, and write the files it names into the folder `serving` of the model.

    Raises:
        ConfigError: The server does not load the adapter, or would stop at other tokens.
        StorageError: The files cannot be written.
    """
    make = _transformers if server.kind == TRANSFORMERS else _vllm
    return make(model, server, options)


def _vllm(model: ServedModel, server: ServerProgram, options: ServeOptions) -> ServeCommand:
    adapter = model.adapter
    if adapter is not None:
        adapter.refuse_for_vllm(server.version)
    files = _write_files(model)
    name = options.name or model.folder.name
    context = options.max_model_len or model.context
    dtype, parser = options.dtype or model.dtype, model.tool_parser()
    flags = [model.base, "--host", options.host, "--port", str(options.port)]
    flags += ["--served-model-name", name if adapter is None else Path(model.base).name]
    if adapter is not None:
        flags += _lora_flags(adapter, name)
        # Training may have added tokens or changed the token that ends a text.
        flags += ["--tokenizer", model.tokenizer_place]
    flags += ["--revision", model.revision] if model.revision else []
    flags += ["--dtype", dtype] if dtype else []
    flags += ["--max-model-len", str(context)] if context else []
    # vLLM takes end tokens from this file alone; `--override-generation-config` cannot add any.
    flags += ["--generation-config", str(files)]
    flags += ["--chat-template", str(files / TEMPLATE)]
    if parser is not None:
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    arguments = (*server.command, *flags, *options.extra)
    variables = {
        key: os.environ.get(key, value)
        for key, value in (_QUIET | (_ON_CPU if server.on_cpu else {})).items()
    }
    return ServeCommand(arguments, name, _url(options), variables, tuple(_notes(model)))


def _transformers(model: ServedModel, server: ServerProgram, options: ServeOptions) -> ServeCommand:
    if model.adapter is not None:
        raise ConfigError(
            f"{model.folder}: found an adapter, which `transformers serve` does not load: run "
            f"`agenttuning merge {model.folder}` and serve the merged folder, or install vLLM"
        )
    _check_end_tokens(model)
    if options.name or options.max_model_len:
        raise ConfigError(
            "`name`, `max_model_len`: found one, which `transformers serve` has no option for"
        )
    dtype = options.dtype or model.dtype
    flags = [str(model.folder), "--host", options.host, "--port", str(options.port)]
    flags += ["--dtype", dtype] if dtype else []
    # The server refuses requests for its model under any name but its path.
    arguments = (*server.command, *flags, *options.extra)
    return ServeCommand(
        arguments, str(model.folder), _url(options), {"DO_NOT_TRACK": "1"}, tuple(_notes(model))
    )


def _lora_flags(adapter: Adapter, name: str) -> list[str]:
    return [
        "--enable-lora",
        "--max-lora-rank",
        str(adapter.max_lora_rank),
        "--lora-modules",
        f"{name}={adapter.folder}",
    ]


def _write_files(model: ServedModel) -> Path:
    """Write the chat template and the end tokens of training; returns their folder."""
    folder = model.folder / FOLDER
    template = model.tokenizer.chat_template
    if isinstance(template, dict):
        template = template["default"]
    ends = json.dumps({"eos_token_id": model.end_ids})
    with writing(folder):
        folder.mkdir(exist_ok=True)
        replace_text(folder / TEMPLATE, template)
        replace_text(folder / GENERATION_CONFIG, ends + "\n")
    return folder


def _check_end_tokens(model: ServedModel) -> None:
    """Reject a model that `transformers serve` would not stop where training ends a turn.

    Raises:
        ConfigError: Its generation config lacks an end token.
    """
    missing = sorted(set(model.end_ids) - set(saved_ends(model.base)))
    if missing:
        raise ConfigError(
            f"{model.folder / GENERATION_CONFIG}: eos_token_id: lacks {missing}, at which training "
            "ends a turn; `transformers serve` stops only at tokens listed there"
        )


def _notes(model: ServedModel) -> list[str]:
    if not model.is_quantized:
        return []
    return [
        "trained on a quantized base, served on the original one: answers differ slightly; "
        f"`agenttuning merge {model.folder}` makes a model that answers as trained"
    ]


def _url(options: ServeOptions) -> str:
    host = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host
    return f"http://{f'[{host}]' if ':' in host else host}:{options.port}/v1"
