"""Check the server of `agenttuning.endpoint` before training."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.endpoint import EndpointConfig
from agenttuning_plugin.config.findings import Finding, guarded
from agenttuning_plugin.evaluation.server import RouteError, Server, load_hint
from agenttuning_plugin.reports.endpoint_files import FOLDER

_WHAT = "endpoint"
_SECONDS = 30.0
_ADAPTERS = ("lora", "qlora")
_REFUSED = {
    "peft_use_dora": "DoRA",
    "lora_modules_to_save": "full modules in addition to the LoRA weights",
}
"""Keys of a recipe for adapters that vLLM does not load, and what they ask for."""


def check_endpoint(
    cfg: Mapping[str, Any],
    settings: EndpointConfig,
    tokenizer: Any = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Check what the recipe needs of the server, and query the server.

    Args:
        cfg: The recipe.
        settings: Its section `endpoint`.
        tokenizer: The run's, with its chat template; prompts are not compared without it.
        template_kwargs: Variables of the chat template, set in the tokenizer already.
    """
    wrong = list(_recipe(cfg))
    yield from wrong
    server = Server(settings.base_url, settings.api_key_env, _SECONDS)
    try:
        models = server.models()
    except RouteError as error:
        yield Finding(_WHAT, f"agenttuning.endpoint.base_url: {error}", "error")
        return
    yield Finding(_WHAT, f"{settings.base_url} answers")
    yield _base(cfg, models)
    if not wrong:
        yield from _adapter(cfg, server)
    if tokenizer is not None:
        yield from guarded(_WHAT, lambda: _prompts(cfg, server, tokenizer, template_kwargs))


def _recipe(cfg: Mapping[str, Any]) -> Iterator[Finding]:
    """Check what can be rejected without a request."""
    if cfg.get("adapter") not in _ADAPTERS:
        detail = (
            f"adapter: found {cfg.get('adapter')!r}, expected lora: a running server cannot "
            "replace its base weights"
        )
        yield Finding(_WHAT, f"agenttuning.endpoint: {detail}", "error")
    for key, words in _REFUSED.items():
        if cfg.get(key):
            detail = f"{key}: found {words}, which vLLM does not load"
            yield Finding(_WHAT, f"agenttuning.endpoint: {detail}", "error")


def _base(cfg: Mapping[str, Any], models: list[dict[str, Any]]) -> Finding:
    """Check that the recipe's base model is among the server's models."""
    wanted = str(cfg.get("base_model") or "")
    roots = [str(row.get("root") or row.get("id")) for row in models if not row.get("parent")]
    names = {Path(root).expanduser().name for root in roots}
    if Path(wanted).expanduser().name in names:
        return Finding(_WHAT, f"serves {wanted}")
    return Finding(
        _WHAT,
        f"base_model: found {wanted}, and the server serves {', '.join(roots) or 'nothing'}: an "
        "adapter of another base gives meaningless answers",
        "warning",
    )


def _adapter(cfg: Mapping[str, Any], server: Server) -> Iterator[Finding]:
    """Let the server load an adapter of the recipe's rank without weights.

    It reports other problems before missing weights: no such route, a folder it does not see,
    a rank that is too high.
    """
    place = Path(str(cfg.get("output_dir") or ".")).expanduser()
    made = next(each for each in (place, *place.parents) if each.is_dir())
    probe = Path(tempfile.mkdtemp(prefix=".agenttuning-probe-", dir=made)).resolve()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(cfg.get("base_model") or ""),
        "r": cfg.get("lora_r") or 8,
        "lora_alpha": cfg.get("lora_alpha") or 16,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    body = {"lora_name": probe.name, "lora_path": str(probe)}
    try:
        probe.chmod(0o755)  # The server may run as another user.
        (probe / "adapter_config.json").write_text(json.dumps(config), "utf-8")
        server.call("load_lora_adapter", body)
    except RouteError as error:
        reply = error.reply.lower()
        if error.status not in (404, None) and ("tensor" in reply or "safetensors" in reply):
            yield Finding(_WHAT, f"loads LoRA adapters of rank {config['r']} from {made}")
            return
        hint = load_hint(error, f"{place}/{FOLDER}")
        yield Finding(_WHAT, f"load_lora_adapter: {error}{hint}", "error")
    else:
        server.call("unload_lora_adapter", {"lora_name": probe.name})
        yield Finding(_WHAT, f"loads LoRA adapters of rank {config['r']} from {made}")
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _prompts(
    cfg: Mapping[str, Any],
    server: Server,
    tokenizer: Any,
    template_kwargs: Mapping[str, Any] | None,
) -> Iterator[Finding]:
    from agenttuning_plugin.evaluation.served_prompts import compare_prompts, prompts_of

    prompts = prompts_of(tokenizer, tuple(cfg.get("eot_tokens") or ()), dict(template_kwargs or {}))
    unknown = compare_prompts(server, prompts, tokenizer)
    for line in unknown:
        yield Finding(_WHAT, line, "warning")
    if not unknown:
        yield Finding(_WHAT, "renders prompts and ends turns as the recipe does")
