"""What an inference server needs to know of a LoRA adapter, and what vLLM does not load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.model_record import tensor_headers
from dataset_builders.errors import ConfigError

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's `--max-lora-rank` (`MaxLoRARanks` in vllm/config/lora.py)."""

_PATTERNS_SINCE = (0, 32)
"""First vLLM that was seen here to read `rank_pattern` and `alpha_pattern` of an adapter."""

_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of `init_lora_weights` that leave the base model's weights as they are."""

_UNSUPPORTED = {
    "use_dora": "DoRA",
    "modules_to_save": "full modules (modules_to_save)",
    "trainable_token_indices": "trained rows of the embedding (trainable_token_indices)",
    "lora_bias": "LoRA biases (lora_bias)",
    "layer_replication": "replicated layers (layer_replication)",
    "alora_invocation_tokens": "activated LoRA (alora_invocation_tokens)",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
}
"""Fields of an adapter's config that vLLM refuses (vllm/lora/peft_helper.py), with their names."""

_PATTERNS = {"rank_pattern": "ranks", "alpha_pattern": "scales"}


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter on disk.

    Attributes:
        folder: Its folder.
        config: Content of `adapter_config.json`.
    """

    folder: Path
    config: dict[str, Any]

    @property
    def max_lora_rank(self) -> int:
        """The smallest `--max-lora-rank` of vLLM that holds the adapter.

        Raises:
            ConfigError: vLLM has none.
        """
        rank = max(
            (int(self.config.get("r") or 0), *(self.config.get("rank_pattern") or {}).values())
        )
        for allowed in _RANKS:
            if rank <= allowed:
                return allowed
        raise ConfigError(f"{self.folder}: found an adapter of rank {rank}, vLLM loads at most 512")

    def refuse_for_vllm(self, version: tuple[int, ...]) -> None:
        """Reject an adapter that vLLM does not load, or would load wrongly.

        Args:
            version: Of vLLM.

        Raises:
            ConfigError: With the remedy, `agenttuning merge`.
        """
        found = next(self._unsupported(version), None)
        if found:
            raise ConfigError(
                f"{self.folder}: found an adapter with {found}, which vLLM does not load: run "
                f"`agenttuning merge {self.folder}` and serve the merged folder"
            )
        _ = self.max_lora_rank

    def _unsupported(self, version: tuple[int, ...]) -> Iterator[str]:
        kind = str(self.config.get("peft_type") or "").upper()
        if kind != "LORA":
            yield f"peft_type {kind or 'unknown'}"
        yield from (name for field, name in _UNSUPPORTED.items() if self.config.get(field))
        if self.config.get("bias", "none") != "none":
            yield f"trained biases (bias: {self.config['bias']})"
        init = self.config.get("init_lora_weights")
        if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
            yield f"changed base weights (init_lora_weights: {init})"
        if version < _PATTERNS_SINCE:
            for field, name in _PATTERNS.items():
                if self.config.get(field):
                    yield f"{name} by module ({field}; vLLM before 0.32)"
        if full := _full_weights(self.folder / ADAPTER_WEIGHTS):
            yield f"full weights of {full[0]}"


def _full_weights(file: Path) -> list[str]:
    """Return the names of tensors in a safetensors file that are not low-rank factors.

    Peft saves resized embeddings beside the factors without recording it in the config.
    """
    if not file.is_file():
        return []
    return sorted(name for name in tensor_headers(file) if "lora_" not in name)
