"""`agenttuning merge`: one model of the base as it was trained and the run's adapter."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.evaluation.devices import usable_device
from agenttuning_plugin.export.output import (
    copy_weights,
    load_run_tokenizer,
    new_folder,
    save_generation_config,
    weights_size,
)
from agenttuning_plugin.export.parity import (
    TOLERANCES,
    Parity,
    compare_logits,
    logits_of,
    sample_rows,
)
from agenttuning_plugin.export.trained import TrainedModel, find_trained
from agenttuning_plugin.export.weights import (
    attach_adapter,
    check_shapes,
    convert,
    dequantized,
    empty_model,
    keep_quantized_layout,
    load_base,
    load_config,
    merge_adapter,
)
from agenttuning_plugin.reports.model_card import write_model_card
from dataset_builders.errors import AgentTuningError, ConfigError
from dataset_builders.extras import needs_extra
from dataset_builders.stdio import silenced, without_bars

Say = Callable[[str], None]


class MergeError(AgentTuningError, RuntimeError):
    """The merged model does not answer as the trained one did."""


@dataclass(frozen=True)
class MergeReport:
    """What a merge made.

    Attributes:
        out: The model's folder.
        dtype: Type of its weights.
        parity: The comparison with the trained model; None for a full fine-tune, whose weights are
            copied.
        end_ids: Tokens at which generation stops.
        notes: What the user should know, one line each.
    """

    out: Path
    dtype: str
    parity: Parity | None
    end_ids: list[int]
    notes: list[str]


def merge_run(
    place: Path,
    out: Path | None = None,
    *,
    base: str | None = None,
    dtype: str | None = None,
    rows: int = 8,
    device: str | None = None,
    say: Say = lambda _: None,
) -> MergeReport:
    """Merge the adapter of a run into its base as trained, and check the result's logits.

    Layers that training quantised get the values that they computed with, and all others those of
    the base. The output folder appears only once the check has passed.

    Args:
        place: Output folder of a run, one of its checkpoints, or an adapter's folder.
        out: Folder of the merged model; by default `merged` in `place`.
        base: Where the base model is now; by default as the adapter's config says.
        dtype: Type of the merged weights; the base's by default.
        rows: Number of rows to compare.
        device: Such as "cuda"; by default a GPU if there is one.
        say: Called with a line before each long step.

    Raises:
        ConfigError: See `find_trained` and `usable_device`; or the output folder is not empty, or
            neither base nor adapter holds the embeddings of the tokenizer's tokens.
        DataError: A file of the run or of the base is damaged.
        SourceNotFoundError: A model is missing.
        StorageError: There is no room for the result.
        MergeError: The logits differ by more than the tolerance; nothing is written.
    """
    with needs_extra("eval"), silenced():
        import transformers

        _ = transformers.AutoModelForCausalLM, transformers.PreTrainedModel
    if dtype is not None and dtype not in TOLERANCES:
        raise ConfigError(f"`dtype`: found {dtype!r}, expected one of {', '.join(TOLERANCES)}")
    trained = find_trained(place, base)
    target = (out or trained.folder / "merged").expanduser()
    command = shlex.join(
        ["agenttuning", "merge", str(place)]
        + (["--base", base] if base else [])
        + (["--dtype", dtype] if dtype else [])
    )
    if not trained.adapter:
        return _copy(trained, target, command, dtype, say)
    return _Merge(trained, target, command, dtype, rows, usable_device(device), say).run()


class _Merge:
    """One merge of an adapter; its arguments are those of `merge_run`."""

    def __init__(
        self,
        trained: TrainedModel,
        out: Path,
        command: str,
        dtype: str | None,
        rows: int,
        device: str,
        say: Say,
    ) -> None:
        self._trained, self._out, self._command = trained, out, command
        self._rows, self._device, self._say = rows, device, say
        self._config = load_config(trained.base, trained.revision)
        stored = str(getattr(self._config, "dtype", None) or "float32").removeprefix("torch.")
        self._stored = stored if stored in TOLERANCES else "float32"
        self._dtype = dtype or self._stored
        self._tokenizer = load_run_tokenizer(trained)

    def run(self) -> MergeReport:
        empty = empty_model(self._config)
        check_shapes(self._trained, empty)
        parameters = sum(weight.numel() for weight in empty.parameters())
        size = parameters * {"float32": 4}.get(self._dtype, 2)
        with new_folder(self._out, size) as stage, without_bars():
            self._say(self._plan(parameters))
            parity = self._write(stage)
            ends = save_generation_config(self._trained, self._tokenizer, self._config, stage)
            self._tokenizer.save_pretrained(stage)
            write_model_card(self._trained.run, stage, self._facts(parity))
        return MergeReport(self._out, self._dtype, parity, ends, self._notes())

    def _write(self, stage: Path) -> Parity:
        trained, device = self._trained, self._device
        rows, source = sample_rows(trained.run, self._tokenizer, self._rows)
        model = attach_adapter(load_base(trained, device, self._stored), trained)
        self._check_tokens(model)
        keep_quantized_layout(model)
        self._say(f"trained model: logits of {len(rows)} {source}")
        expected = logits_of(model, rows)
        if trained.quantization:
            with silenced():
                plain = dequantized(model.unload())
            model = attach_adapter(plain, trained)
        self._say(f"merging into {self._dtype}")
        # On a CPU the model is in float32 anyway, so that the merge is compared before rounding.
        tolerated = self._tolerated()
        exact = device == "cpu" and tolerated != "float32" and not self._rounds_activations
        model = merge_adapter(model, "float32" if exact else self._dtype)
        if exact:
            self._check(compare_logits(expected, logits_of(model, rows), "float32", source))
        model = convert(model, self._dtype)
        with silenced():
            model.save_pretrained(stage)
        del model
        gc.collect()
        self._say("merged model: the same logits, from its files")
        merged = self._load_merged(stage)
        parity = compare_logits(expected, logits_of(merged, rows), tolerated, source)
        self._check(parity)
        return parity

    @property
    def _rounds_activations(self) -> bool:
        """Whether the trained model rounds activations, which no merged model does."""
        return bool(self._trained.quantization.get("load_in_8bit"))

    def _tolerated(self) -> str:
        """Return the type whose rounding the comparison has to allow."""
        return "bfloat16" if self._rounds_activations else self._dtype

    def _check(self, parity: Parity) -> None:
        if not parity.holds:
            raise MergeError(
                f"{self._out}: {parity.line()}: the merged model is not the trained one, and "
                "nothing was written"
            )

    def _load_merged(self, stage: Path) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        kind = torch.float32 if self._device == "cpu" else getattr(torch, self._dtype)
        try:
            with silenced():
                model: Any = AutoModelForCausalLM.from_pretrained(stage, dtype=kind)
        except (RuntimeError, ValueError) as error:
            # Such as layers that bitsandbytes stores transposed (GPT-2's).
            line = " ".join(str(error).split())[:200]
            raise MergeError(f"{self._out}: the merged files cannot be loaded: {line}") from error
        return model.to(self._device).eval()

    def _check_tokens(self, model: Any) -> None:
        from evaluators.models.model_info import vocabulary_size

        tokens, rows = max(self._tokenizer.get_vocab().values()) + 1, vocabulary_size(model)
        if tokens > rows:
            raise ConfigError(
                f"{self._trained.folder}: its tokenizer has {tokens} tokens, but base and adapter "
                f"have {rows} embeddings: tokens were added and their embeddings not saved "
                "(peft: modules_to_save or trainable_token_indices)"
            )

    def _plan(self, parameters: int) -> str:
        need = parameters * (4 if self._device == "cpu" else 2) / 1024**3
        bits = (self._trained.quantization.get("load_in_4bit") and "4") or "8"
        how = f", quantised to {bits} bits as in training" if self._trained.quantization else ""
        return (
            f"base: {self._trained.base}{how}; {parameters / 1e9:.2f} billion weights, about "
            f"{need:.1f} GiB of memory ({self._device})"
        )

    def _facts(self, parity: Parity) -> dict[str, str]:
        summary = f"Merged, weights in {self._dtype}: {parity.line()}."
        return {"summary": summary, "command": self._command}

    def _notes(self) -> list[str]:
        if self._trained.is_known:
            return []
        return [
            f"{self._trained.run}: it is not recorded how the base was loaded for training: it was "
            "taken as it is, not quantised"
        ]


def _copy(
    trained: TrainedModel, out: Path, command: str, dtype: str | None, say: Say
) -> MergeReport:
    """Give a full fine-tune its template, generation config and card; the weights stay the same."""
    config = load_config(str(trained.folder), None)
    stored = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    if dtype not in (None, stored):
        raise ConfigError(f"`dtype`: found {dtype}, but a full fine-tune keeps its own: {stored}")
    say(f"{trained.folder}: all weights were trained: nothing to merge, they are copied")
    with new_folder(out, weights_size(trained.folder)) as stage:
        tokenizer = load_run_tokenizer(trained)
        copy_weights(trained.folder, stage)
        ends = save_generation_config(trained, tokenizer, config, stage)
        tokenizer.save_pretrained(stage)
        facts = {"summary": f"All weights were trained ({stored}).", "command": command}
        write_model_card(trained.run, stage, facts)
    return MergeReport(out, stored, None, ends, [])
