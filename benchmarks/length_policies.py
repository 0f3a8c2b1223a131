"""What each length policy keeps of real conversations: rows, trained turns and tokens.

    python benchmarks/length_policies.py SOURCE TOKENIZER [--format sharegpt] [--limit 2000]

SOURCE is a file, a folder or a hub id. One line for each longest row
and policy; shares are of what all conversations hold without a limit.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.tokens import Encoder, TokenReport
from dataset_builders.masks.chat_templates import load_template
from dataset_builders.sources.loading import SourceSpec, load_source

POLICIES = ("drop", "split", "shorten", "truncate")


def count(
    conversations: list[Conversation], tokenizer: Any, limit: int, policy: Any
) -> TokenReport:
    """What becomes of the conversations."""
    report = TokenReport()
    for _ in Encoder(tokenizer, max_length=limit, policy=policy).encode(conversations, report):
        pass
    return report


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source")
    parser.add_argument("tokenizer")
    parser.add_argument("--format", default="auto", help="of the source, see `SourceSpec`")
    parser.add_argument("--layout", choices=["own", "llama-2"], default="own")
    parser.add_argument("--limit", type=int, default=None, help="conversations at most")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096])
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(options.tokenizer)
    if options.layout == "llama-2":
        tokenizer.chat_template = load_template("llama-2")
    conversations = list(load_source(SourceSpec(options.source, options.format)).conversations)[
        : options.limit
    ]
    whole = count(conversations, tokenizer, 10**9, "raise")
    print(f"{options.source}: {whole.summary()}")
    print("| max_length | policy | conversations | rows | trained tokens | what was lost |")
    print("|---|---|---|---|---|---|")
    for limit in options.lengths:
        for policy in POLICIES:
            report = count(conversations, tokenizer, limit, policy)
            share = report.trained_tokens / whole.trained_tokens
            lost = f"{sum(report.dropped.values())} dropped, {report.turns_removed} turns removed"
            print(
                f"| {limit} | {policy} | {report.kept / report.read:.1%} | {report.rows} "
                f"| {share:.2%} | {lost}, {report.truncated} ends cut |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
