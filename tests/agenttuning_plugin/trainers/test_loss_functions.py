"""Other losses than the negative log-likelihood: gradients against a computation by definition."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin.config.recipe import AgentTuningSection  # noqa: E402
from agenttuning_plugin.config.rules import problems  # noqa: E402
from agenttuning_plugin.preflight.loss_function import recipe_loss, script_loss  # noqa: E402
from agenttuning_plugin.training_data.loss_normalization import LossNormalization  # noqa: E402
from dataset_builders.errors import ConfigError  # noqa: E402
from tests.agenttuning_plugin.trainers.test_loss_normalization import (  # noqa: E402
    LENGTHS,
    Recorder,
    packed,
    rows,
    same,
    trainer_of,
)
from tests.support.packed_models import tiny  # noqa: E402

SMOOTHING = 0.1
TotalLoss = Callable[[Any, Any], Any]
"""Sum over trained tokens, of their log-probabilities (N, V) and targets (N,)."""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # Axolotl imports that part of TRL


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("Llama")


def dft(logps: Any, targets: Any) -> Any:
    """Dynamic fine-tuning (arXiv 2508.05629, equation 9): -sg(p) log p."""
    chosen = logps.gather(1, targets[:, None])
    return -(chosen.exp().detach() * chosen).sum()


def eaft(logps: Any, targets: Any) -> Any:
    """Entropy-weighted: the entropy among the 20 most likely tokens, without its gradient."""
    top = logps.detach().topk(20).values.log_softmax(1)
    entropy = -(top.exp() * top).sum(1)
    return -(entropy * logps.gather(1, targets[:, None])[:, 0]).sum()


def smoothed(logps: Any, targets: Any) -> Any:
    """Label smoothing: a tenth of the target's weight on all tokens alike."""
    return torch.nn.functional.cross_entropy(
        logps, targets, reduction="sum", label_smoothing=SMOOTHING
    )


def likelihood(logps: Any, targets: Any) -> Any:
    """The negative log-likelihood."""
    return -logps.gather(1, targets[:, None]).sum()


def expected(model: Any, loss: TotalLoss, rule: str = "tokens") -> dict[str, Any]:
    """Gradient of the mean over trained tokens, or over examples of their means."""
    model = copy.deepcopy(model).train()
    for row in rows():
        ids, labels = (torch.tensor(row[name]) for name in ("input_ids", "labels"))
        logps = model(input_ids=ids[None], use_cache=False).logits[0, :-1].log_softmax(-1)
        trained = labels[1:] != -100
        total = loss(logps[trained], labels[1:][trained])
        whole = sum(number for _, number in LENGTHS)
        (total / (whole if rule == "tokens" else int(trained.sum()) * len(LENGTHS))).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def with_loss(
    kind: str, name: str, model: Any, data: Any, tokenizer: Any, out: Path, **more: Any
) -> Any:
    """A trainer with a loss, set as TRL and Axolotl's builder set it."""
    model = copy.deepcopy(model)
    if kind == "trl":
        chosen = {"loss_type": name} if name == "dft" else {"label_smoothing_factor": SMOOTHING}
        if name == "smoothed":
            chosen["loss_type"] = "nll"
        return trainer_of("trl", model, data, tokenizer, out, **chosen, **more)
    losses = pytest.importorskip(f"axolotl.monkeypatch.loss.{name}", reason="Axolotl 0.20")
    made = trainer_of("axolotl", model, data, tokenizer, out, **more)
    function = getattr(losses, f"{name}_loss")
    made.compute_loss_func = partial(function, alpha=1.0, k=20) if name == "eaft" else function
    return made


def gradient(trainer: Any, rule: Any = "tokens") -> dict[str, Any]:
    LossNormalization.install(trainer, rule)
    recorder = Recorder()
    trainer.add_callback(recorder)
    trainer.train()
    return recorder.found


LOSSES: dict[str, tuple[str, TotalLoss]] = {
    "dft with TRL": ("trl", dft),
    "dft with Axolotl": ("axolotl", dft),
    "eaft with Axolotl": ("axolotl", eaft),
    "smoothing with TRL": ("trl", smoothed),
}


@pytest.mark.parametrize("cut", [(4, 1), (1, 4), (2, 2), (1, 2)])
@pytest.mark.parametrize(("kind", "loss"), LOSSES.values(), ids=LOSSES)
@pytest.mark.filterwarnings("ignore:.label_smoothing_factor. is deprecated")
def test_a_step_has_the_loss_of_its_trained_tokens(
    kind: str, loss: Any, cut: tuple[int, int], model: Any, small_tokenizer: Any, tmp_path: Path
) -> None:
    data = packed() if cut == (1, 2) else rows()
    trainer = with_loss(
        kind,
        loss.__name__,
        model,
        data,
        small_tokenizer,
        tmp_path,
        per_device_train_batch_size=cut[0],
        gradient_accumulation_steps=cut[1],
    )
    found = gradient(trainer)
    assert same(found, expected(model, loss))
    assert not same(found, expected(model, likelihood))


@pytest.mark.parametrize("name", ["dft", "smoothed"])
@pytest.mark.filterwarnings("ignore:.label_smoothing_factor. is deprecated")
def test_by_examples_it_is_averaged_or_refused(
    name: str, model: Any, small_tokenizer: Any, tmp_path: Path
) -> None:
    more = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    trainer = with_loss("trl", name, model, rows(), small_tokenizer, tmp_path, **more)
    wrong = [each for each in script_loss(trainer.args, "examples") if each.level == "error"]
    if trainer.compute_loss_func is not None:  # dft before TRL 1.16
        assert len(wrong) == 1
        with pytest.raises(ConfigError, match="found a loss function of the trainer's own"):
            LossNormalization(trainer, "examples")
        return
    assert not wrong
    loss = {"dft": dft, "smoothed": smoothed}[name]
    assert same(gradient(trainer, "examples"), expected(model, loss, "examples"))


def test_check_names_the_loss_and_refuses_what_does_not_combine() -> None:
    section: dict[str, Any] = {"agent": "a.jsonl", "general": "g.jsonl"}
    recipe = {"use_dft": True, "max_steps": 3, "agenttuning": section}
    assert [finding.what for finding in recipe_loss(recipe)] == ["loss function"]
    assert not list(recipe_loss({}))
    assert not problems(recipe, AgentTuningSection.model_validate(section))
    by_examples = AgentTuningSection.model_validate({**section, "loss_normalization": "examples"})
    (line,) = problems(recipe, by_examples)
    assert line.startswith("use_dft: found true with agenttuning.loss_normalization: examples")


def test_an_axolotl_that_would_drop_the_loss_is_refused() -> None:
    schemas = pytest.importorskip("axolotl.utils.schemas.config", reason="needs Axolotl")
    from agenttuning_plugin.trainers.axolotl_keys import unknown_keys

    found = [key for key in unknown_keys({"use_dft": True}) if key.key == "use_dft"]
    if "use_dft" in schemas.AxolotlConfigWCapabilities.model_fields:
        assert not found
        return
    (key,) = found
    assert key.misspelt
    assert key.message.endswith("has no such key, expected Axolotl 0.20 or later")
    assert not any(key.misspelt for key in unknown_keys({"use_dft": False}))
