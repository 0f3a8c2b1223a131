"""Conversations in, a tokenized and masked Arrow dataset on disk out: ours and the peers.

    OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 python benchmarks/tokenize_mask.py

Real ShareGPT conversations, the same for all; one core; contestants take turns, so that
whatever else the machine does meets all of them. Times are cpu-seconds (user and system,
children included), medians over the rounds, after one unmeasured warm-up. Ours includes
its start: building the fast engine and comparing it with the tokenizer. Ids and labels
are compared with Axolotl's on every conversation. With `--processes N` the wall time of N
processes follows, for which N cores should be free.

Peers: Axolotl's TokenizedPromptDataset with its chat_template strategy, and TRL's
SFTTrainer._prepare_dataset with assistant_only_loss, which needs the template marked
with {% generation %}. TRL comes twice: with a longest row, as users have it and as ours
has, which no row exceeds here; and with max_length None, which spares it two passes.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

for _name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
for _name in ("AXOLOTL_DO_NOT_TRACK", "DO_NOT_TRACK", "HF_HUB_OFFLINE"):
    os.environ.setdefault(_name, "1")
warnings.simplefilter("ignore")

# The variables have to be set before.
from label_agreement import agreement, arrays  # noqa: E402

from agenttuning_plugin.demo.assets import chat_file, model_folder  # noqa: E402
from dataset_builders.conversation import Conversation, to_row  # noqa: E402
from dataset_builders.encoding.tokens import Encoder, encode_dataset  # noqa: E402
from dataset_builders.masks.chat_templates import load_template  # noqa: E402
from dataset_builders.sources.loading import SourceSpec, load_source  # noqa: E402
from dataset_builders.stdio import silenced  # noqa: E402

NO_LIMIT = 10**9

# Where each template writes the assistant's words, and the same marked for TRL.
MARKED = {
    "chatml": (
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}",
        "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}"
        "{% generation %}{{message['content'] + '<|im_end|>'}}{% endgeneration %}"
        "{% else %}{{message['content'] + '<|im_end|>'}}{% endif %}{{'\n'}}",
    ),
    "llama-2": (
        "{{- ' ' + turn['content'] | trim + ' ' + eos_token -}}",
        "{{- ' ' -}}{%- generation -%}{{- turn['content'] | trim + ' ' + eos_token -}}"
        "{%- endgeneration -%}",
    ),
}

Contestant = Callable[[Path], Any]


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in usage)


def load_tokenizer(folder: str | None, layout: str) -> Any:
    """A tokenizer in one of the two layouts; by default the demo model's, in ChatML."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder or model_folder())
    tokenizer.model_max_length = NO_LIMIT
    if layout == "llama-2":
        tokenizer.chat_template = load_template("llama-2")
    return tokenizer


def ours(conversations: list[Conversation], tokenizer: Any, engine: Any, **more: Any) -> Contestant:
    """This project, on one of its engines."""

    def run(folder: Path) -> Any:
        encoder = Encoder(tokenizer, max_length=NO_LIMIT, engine=engine)
        return encode_dataset(conversations, encoder, folder=folder / "rows", **more).dataset

    return run


def axolotl(source: Path, tokenizer: Any) -> Contestant:
    """Axolotl's own preparation of one source."""
    from axolotl.datasets import TokenizedPromptDataset
    from axolotl.prompt_strategies.chat_template import load
    from axolotl.utils.dict import DictDefault
    from datasets import load_from_disk

    strategy = load(
        tokenizer,
        DictDefault(train_on_inputs=False, sequence_len=NO_LIMIT),
        {
            "chat_template": "tokenizer_default",
            "field_messages": "messages",
            "message_property_mappings": {"role": "role", "content": "content"},
            "message_field_training": "train",
            "train_on_eos": "turn",
        },
    )
    return lambda _: TokenizedPromptDataset(strategy, load_from_disk(str(source)))


def trl(
    source: Path, tokenizer: Any, layout: str, scratch: Path, max_length: int | None
) -> Contestant:
    """TRL's preparation, as SFTTrainer runs it."""
    from datasets import load_from_disk
    from trl import SFTConfig, SFTTrainer

    plain, marked = MARKED[layout]
    assert plain in tokenizer.chat_template, "the template has changed: mark it anew"
    template = tokenizer.chat_template.replace(plain, marked)
    trainer: Any = SimpleNamespace(
        _tokenizer=tokenizer, chat_template=template, completion_only_loss=False
    )
    args = SFTConfig(
        output_dir=str(scratch),
        max_length=max_length,
        assistant_only_loss=True,
        bf16=False,
        use_cpu=True,
    )
    return lambda _: SFTTrainer._prepare_dataset(
        trainer, load_from_disk(str(source)), tokenizer, args, False, None, "train"
    )


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Cpu-seconds of every contestant and round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, run in contestants.items():
            with tempfile.TemporaryDirectory() as folder:
                start = cpu_seconds()
                with silenced():
                    run(Path(folder))
                times[name].append(cpu_seconds() - start)
        last = ", ".join(f"{name} {values[-1]:.2f}" for name, values in times.items())
        print(f"round {number + 1} of {rounds}: {last}", file=sys.stderr, flush=True)
    return times


def spelling(conversations: list[Conversation], tokenizer: Any) -> set[int]:
    """Rows whose own words spell a control token."""
    renderer = Encoder(tokenizer, max_length=NO_LIMIT).renderer
    return {n for n, item in enumerate(conversations) if renderer.render(item).literals}


def compare_peers(
    conversations: list[Conversation], tokenizer: Any, layout: str, rounds: int
) -> None:
    """Measure all contestants on one tokenizer and print times, ratios and agreement."""
    from datasets import Dataset, disable_caching

    disable_caching()
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        with silenced():
            Dataset.from_list([to_row(item) for item in conversations]).save_to_disk(str(source))
        contestants: dict[str, Contestant] = {}
        if layout == "chatml":
            contestants["ours, fast engine"] = ours(conversations, tokenizer, "tiktoken")
        contestants |= {
            "ours, Hugging Face engine": ours(conversations, tokenizer, "huggingface"),
            "TRL": trl(source, tokenizer, layout, Path(scratch), NO_LIMIT),
            "TRL, max_length None": trl(source, tokenizer, layout, Path(scratch), None),
            "Axolotl": axolotl(source, tokenizer),
        }
        with silenced():  # the warm-up
            datasets = {
                name: run(Path(scratch) / name.replace(" ", "-"))
                for name, run in contestants.items()
            }
        times = measure(contestants, rounds)
        tokens = sum(len(ids) for ids, _ in arrays(datasets["ours, Hugging Face engine"]))
        print(f"\n{layout}: {len(conversations)} conversations, {tokens} tokens, {rounds} rounds")
        print_table(times, tokens)
        spelt, blanks = spelling(conversations, tokenizer), layout == "llama-2"
        for name, rows in datasets.items():
            if name.startswith("ours"):
                words = agreement(rows, datasets["Axolotl"], tokenizer, spelt, blanks)
                print(f"  {name} against Axolotl: {words}")
        words = agreement(
            datasets["ours, Hugging Face engine"], datasets["TRL"], tokenizer, spelt, blanks
        )
        print(f"  ours against TRL: {words}")


def print_table(times: dict[str, list[float]], tokens: int) -> None:
    """One line for each contestant: median, range, throughput, and the peers' ratios."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios_of = f"{'Axolotl/it':>12}{'TRL/it':>8}{'TRL None/it':>13}"
    print(f"  {'':28}{'cpu-s':>7}{'range':>16}{'tokens/cpu-s':>14}{ratios_of}")
    for name, values in times.items():
        spread = f"[{min(values):.2f}-{max(values):.2f}]"
        peers = ("Axolotl", "TRL", "TRL, max_length None")
        ratios = [medians[peer] / medians[name] for peer in peers]
        print(
            f"  {name:28}{medians[name]:7.2f}{spread:>16}{tokens / medians[name]:14,.0f}"
            f"{ratios[0]:12.2f}{ratios[1]:8.2f}{ratios[2]:13.2f}"
        )


def compare_processes(
    conversations: list[Conversation], tokenizer: Any, processes: int, rounds: int
) -> None:
    """Wall time of one process against several, in turns."""
    for engine in ("huggingface", "tiktoken"):
        walls: dict[int, list[float]] = {1: [], processes: []}
        for _, number in ((r, n) for r in range(rounds) for n in walls):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                ours(conversations, tokenizer, engine, processes=number)(Path(folder))
                walls[number].append(time.perf_counter() - start)
        one, many = (statistics.median(values) for values in walls.values())
        print(
            f"  {engine}: 1 process {one:.2f} s, {processes} processes {many:.2f} s wall, "
            f"ratio {one / many:.2f} (best of each: {min(walls[1]) / min(walls[processes]):.2f}); "
            f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chatml", help="folder of a ChatML tokenizer (default: the demo's)")
    parser.add_argument("--llama2", help="folder of a Llama-2 tokenizer (default: left out)")
    parser.add_argument("--processes", type=int, default=0, help="compare 1 with so many")
    parser.add_argument("--no-peers", action="store_true", help="only the processes")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    spec = SourceSpec(str(chat_file(print)), "sharegpt", limit=options.conversations)
    conversations = list(islice(load_source(spec).conversations, options.conversations))
    tokenizer = load_tokenizer(options.chatml, "chatml")
    if not options.no_peers:
        with one_core():
            compare_peers(conversations, tokenizer, "chatml", options.rounds)
            if options.llama2:
                llama = load_tokenizer(options.llama2, "llama-2")
                compare_peers(conversations, llama, "llama-2", options.rounds)
    if options.processes > 1:
        print(f"\n{len(conversations)} conversations in several processes")
        compare_processes(conversations, tokenizer, options.processes, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
