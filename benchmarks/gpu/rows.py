"""Training data that needs no network: conversations, a tokenizer, and a run's packed rows."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults
from dataset_builders.collection.conversations import to_conversation, write_jsonl
from dataset_builders.conversation import Conversation, Message
from dataset_builders.environments import load_environment
from dataset_builders.masks.chat_templates import load_template
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy

AGENT, GENERAL, TOKENIZER = "agent.jsonl", "general.jsonl", "tokenizer"
VOCABULARY = 4_096
WORDS = 3_000
MEDIAN_WORDS, SPREAD = 700, 0.9  # lengths of ShareGPT conversations are about log-normal
HOLDOUT = 16


def prepare(folder: Path, *, trajectories: int, chats: int, words: int = MEDIAN_WORDS) -> None:
    """Write conversations and a tokenizer trained on them, unless they are there.

    Agent data are episodes of the database environment that its oracle solves. General
    data are random words in conversations of log-normal length: they give rows of usual
    lengths, and no model learns anything from them.

    Args:
        folder: Existing folder.
        trajectories: Number of agent conversations.
        chats: Number of general conversations.
        words: Their median length in words.
    """
    if (folder / TOKENIZER).is_dir():
        return
    environment = load_environment("database")
    tasks = environment.task_ids("train")[:trajectories]
    played = play(environment, tasks, OraclePolicy())
    agent = [to_conversation(trajectory) for trajectory in played]
    general = [_chat(number, words) for number in range(chats)]
    write_jsonl(folder / AGENT, agent)
    write_jsonl(folder / GENERAL, general)
    tokenizer = _tokenizer([m.content for each in agent + general for m in each.messages])
    tokenizer.save_pretrained(folder / TOKENIZER)


def _chat(number: int, words: int) -> Conversation:
    draw = random.Random(number)
    left = min(int(draw.lognormvariate(0, SPREAD) * words) + 8, 2_500)
    turns = max(1, left // 250)
    messages = []
    for _ in range(turns):
        answer = left // turns
        asked, said = (_words(draw, n) for n in (max(2, answer // 5), answer - answer // 5))
        messages += [Message("user", asked), Message("assistant", said, trained=True)]
    return Conversation.create(messages, id=f"chat-{number}")


def _words(draw: random.Random, number: int) -> str:
    """Random words, the frequent ones short and more likely, as in a language."""
    ranks = [int(WORDS ** draw.random()) for _ in range(number)]
    return " ".join(_word(rank) for rank in ranks)


@cache
def _word(rank: int) -> str:
    draw = random.Random(rank)
    return "".join(
        draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(2 + rank % 3)
    )


def _tokenizer(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = load_template("chatml-tools")
    return made


def arguments(folder: Path, device: str, **values: Any) -> Any:
    """Return TRL's arguments that both sides of a comparison are trained with."""
    from trl import SFTConfig

    names = ("activation_checkpointing", "gradient_checkpointing")
    checkpointing = next(n for n in names if n in SFTConfig.__dataclass_fields__)
    values[checkpointing] = values.pop("checkpointing", False)
    common: dict[str, Any] = {
        "output_dir": str(folder),
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 1,
        "bf16": device == "cuda",
        "use_cpu": device == "cpu",
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 1,
    }
    return SFTConfig(**{**common, **sft_defaults(packing=True), **values})


def packed_run(folder: Path, args: Any, length: int, **section: Any) -> TrainingRun:
    """Return the plugin's packed rows for these arguments.

    Args:
        folder: Folder that `prepare` has filled; also holds the encoded rows.
        args: From `arguments`.
        length: Tokens of a packed row.
        section: Further settings of the `agenttuning` section.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
    sources = {"agent": str(folder / AGENT), "general": str(folder / GENERAL)}
    config = AgentTuningConfig(**sources, holdout=HOLDOUT, **section)
    return TrainingRun(
        config, tokenizer, args, max_length=length, packing=True, cache=folder / "prepared"
    )


def plain_rows(run: TrainingRun) -> Any:
    """Copy a run's packed rows into an ordinary dataset, as TRL's own packing would make it."""
    from datasets import Dataset

    view = run.train_dataset
    return Dataset.from_list([dict(view[number]) for number in range(len(view))])


def document_length(rows: Any) -> float:
    """Return the mean length of the documents that a token belongs to."""
    lengths = [length for row in rows["seq_lengths"] for length in row]
    return float(sum(length**2 for length in lengths) / sum(lengths))


def oracle_turns(folder: Path) -> float:
    """Return the mean number of trained turns of the agent conversations that `prepare` wrote."""
    lines = (folder / AGENT).read_text("utf-8").splitlines()
    turns = [sum(m.get("train", False) for m in json.loads(each)["messages"]) for each in lines]
    return sum(turns) / len(turns)
