"""Fixtures that all tests share."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from dataset_builders.masks.chat_templates import load_template

# Read when the libraries are imported; tests never go to the network.
for _name in ("AXOLOTL_DO_NOT_TRACK", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# A shell without job control lets its background ignore it, and so all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPO = Path(__file__).resolve().parents[1]

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("AGENTTUNING_SHARED") or REPO.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder / 'data'} is absent (set AGENTTUNING_SHARED)")
    return folder


@pytest.fixture(scope="session")
def smollm2_tokenizer(shared: Path) -> Any:
    """SmolLM2's tokenizer with its own ChatML template. Shared: copy it to change it."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(shared / "data/tokenizers/smollm2")


@pytest.fixture(scope="session")
def llama2_tokenizer(shared: Path) -> Any:
    """Llama-2's tokenizer with the template that ships here. Shared: copy it to change it."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(shared / "data/tokenizers/llama2")
    tokenizer.chat_template = load_template("llama-2")
    return tokenizer


@pytest.fixture(scope="session")
def small_tokenizer() -> Any:
    """A byte-level BPE of 400 tokens with a ChatML template. Shared: copy it to change it."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # A copy of texts as they once were: edits of documents do not change the tokenizer.
    texts = (REPO / "tests/assets/tokenizer_text.md", REPO / "LICENSE")
    text = "".join(path.read_text("utf-8") for path in texts)
    bpe.train_from_iterator(text.splitlines(), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=CHATML,
    )


@pytest.fixture(scope="session")
def make_tokenizer(small_tokenizer: Any) -> Callable[..., Any]:
    """Makes a copy of `small_tokenizer` with another template (None: ChatML) and eos token."""

    def make(template: str | None = None, eos: str = "<|im_end|>") -> Any:
        tokenizer = copy.deepcopy(small_tokenizer)
        tokenizer.add_tokens([eos], special_tokens=True)
        tokenizer.eos_token = eos
        tokenizer.chat_template = CHATML if template is None else template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def tiny_model_dir(small_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 2 layers, hidden size 64, saved with `small_tokenizer`."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny-model")
    config = transformers.LlamaConfig(
        vocab_size=len(small_tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=small_tokenizer.bos_token_id,
        eos_token_id=small_tokenizer.eos_token_id,
        pad_token_id=small_tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    return folder
