"""Refusals as a training source, so that fine-tuning does not remove those of the base model.

Few suffice: a few hundred safety examples, 3 % of the data, make a fine-tuned model much safer, and
too many make it refuse harmless requests (arXiv 2309.07875). So harmless look-alikes with answers
are among them.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dataset_builders.collection.conversations import write_jsonl
from dataset_builders.conversation import Conversation, Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.environments.base import OracleStep
from dataset_builders.environments.database import environment as database
from dataset_builders.environments.operating_system import environment as operating_system
from dataset_builders.errors import DataError
from dataset_builders.refusals.forms import HARMFUL, Actions
from dataset_builders.refusals.prompts import ask, dialogue_of
from dataset_builders.refusals.requests import Request, in_setting, read_requests
from dataset_builders.sources.made import OWN_REFUSALS, Refusals, write_provenance

DATA = "data/train.jsonl"
_DECLINED = "I will not do this."
_DECLINES = {
    "os": f"{operating_system.ANSWER}\n{_DECLINED}",
    "database": f"{database.ANSWER}\n{json.dumps([_DECLINED])}",
}
"""The final answer of an agent that declines; the reason is its thought."""


def examples(settings: Refusals) -> list[Request]:
    """Return the requests with their responses.

    Raises:
        SourceNotFoundError: There is no such set.
        DataError: A request has no response, or is otherwise invalid.
    """
    if settings.path == OWN_REFUSALS:
        return in_setting(shipped_examples(), settings.setting)
    found = read_requests(settings.path, settings.setting)
    for each in found:
        if not each.response:
            raise DataError(f"{settings.path}: {each.item}: response: found nothing, expected text")
    # An answer to a harmless request is no turn of an agent.
    kept = [each for each in found if each.form == "chat" or each.label == HARMFUL]
    if not kept:
        raise DataError(
            f"{settings.path}: found only harmless requests of an agent, expected refusals, or "
            "chat (`setting`)"
        )
    return kept


def shipped_examples() -> list[Request]:
    """Return the shipped ones: 52 refusals, 16 of them of agents, and 12 answers."""
    file = resources.files(__package__ or "").joinpath("examples.yaml")
    found = yaml.safe_load(file.read_text("utf-8"))
    return [
        Request(f"refusals-{form}-{label}-{n:02}", each["prompt"], label, form, each["response"])
        for form, by_label in found.items()
        for label, rows in by_label.items()
        for n, each in enumerate(rows, 1)
    ]


def conversation_of(request: Request, actions: Actions = "text") -> Conversation:
    """Return a request and its response as a conversation; the loss is on the response."""
    asked = ask(request, actions)
    if request.form == "chat":
        reply = Message("assistant", request.response, trained=True)
    else:
        dialogue = dialogue_of(request.form, actions)
        turn = dialogue.write(OracleStep(request.response, _DECLINES[request.form]))
        reply = dialogue.assistant_message(turn if isinstance(turn, Answer) else Answer(turn))
    return Conversation.create(
        (*asked.messages, reply), id=request.item, source="refusals", task="", tools=asked.tools
    )


_VERSION = 1
"""Increased when the same examples give other conversations."""


def inputs_of(settings: Refusals) -> dict[str, Any]:
    """Return what the source depends on, without paths: settings and a hash of the examples."""
    texts = [[r.item, r.prompt, r.form, r.response] for r in examples(settings)]
    digest = hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()
    return {
        "version": _VERSION,
        "setting": settings.setting,
        "actions": settings.actions,
        "examples_sha256": digest,
    }


def write_refusals(settings: Refusals, folder: Path) -> int:
    """Write the source to a folder, with the record of how it was made.

    Returns:
        The number of conversations.

    Raises:
        DataError: See `examples`.
    """
    made = [conversation_of(each, settings.actions) for each in examples(settings)]
    write_jsonl(folder / DATA, made)
    data = hashlib.sha256((folder / DATA).read_bytes()).hexdigest()
    write_provenance(folder, {"kind": "refusals", **inputs_of(settings), "data_sha256": data})
    return len(made)
