"""Check that a server renders prompts and ends turns like the recipe's tokenizer.

A server renders dialogues with its own chat template. If that differs from the template of the
training data, all figures are measured with other prompts than in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from agenttuning_plugin.evaluation.server import RouteError, Server
from dataset_builders.conversation import Message
from dataset_builders.encoding.coding import Coder
from dataset_builders.errors import ConfigError, MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.clock import writes_date
from dataset_builders.masks.spans import num_alike

_DIALOGUES = (
    (Message("user", "What is 2 + 3?"),),
    (Message("system", "Answer in one word."), Message("user", "Is it late?")),
    (
        Message("user", "Name a table."),
        Message("assistant", "Think: one.\n\nAction: Answer"),
        Message("user", " The answer was wrong. \n"),
    ),
)
"""Test dialogues: a single turn, a system turn, and several turns with blanks around them."""

_BIAS = 100
"""Logit bias that forces the next token; the maximum of OpenAI's field."""

_SHOWN = 60

_DATE = 16
"""Maximum tokens of a date."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The recipe tokenizer's rendering of some dialogues; JSON-ready fields.

    Attributes:
        dialogues: Messages of each, as sent to a server.
        ids: Token ids of each one's prompt.
        ends: Ids of the tokens that end a turn, by token.
        template_kwargs: Variables of the chat template.
        dated: Whether the template writes the date, which is today's on a server and that of
            `clock.CLOCK` here.
    """

    dialogues: list[list[dict[str, str]]]
    ids: list[list[int]]
    ends: dict[str, int]
    template_kwargs: dict[str, Any]
    dated: bool = False


def prompts_of(
    tokenizer: Any, end_of_turn: Sequence[str] = (), template_kwargs: dict[str, Any] | None = None
) -> Prompts:
    """Render the dialogues as in training and evaluation.

    Args:
        tokenizer: With the chat template of the run.
        end_of_turn: Additional end-of-turn tokens besides eos.
        template_kwargs: Variables of the chat template, set in the tokenizer already.

    Raises:
        ConfigError: The tokenizer cannot be used, see `ChatRenderer`.
    """
    renderer, coder = ChatRenderer(tokenizer, end_of_turn), Coder(tokenizer)
    dated = writes_date(tokenizer.chat_template)
    made = Prompts([], [], {}, dict(template_kwargs or {}), dated)
    for dialogue in _DIALOGUES:
        try:
            ids = coder.prompt_ids(renderer.render_prompt(dialogue))
        except MaskError:  # For example a template without system turns: not compared.
            continue
        made.dialogues.append([{"role": m.role, "content": m.content} for m in dialogue])
        made.ids.append([int(each) for each in ids])
    for token in renderer.end_tokens:
        made.ends[token] = int(tokenizer.convert_tokens_to_ids(token))
    return made


def compare_prompts(server: Server, prompts: Prompts, tokenizer: Any = None) -> list[str]:
    """Compare a server's prompt tokens and end-of-turn tokens with the expected ones.

    Args:
        server: The server.
        prompts: Expected prompts.
        tokenizer: Decodes tokens in messages; without it, ids are shown.

    Returns:
        What could not be compared, one line each.

    Raises:
        ConfigError: The server renders other prompts, rejects what the recipe's template renders,
            or continues after an end-of-turn token.
        RouteError: The server does not answer.
    """
    unknown = []
    for dialogue, expected in zip(prompts.dialogues, prompts.ids, strict=True):
        found = _tokens(server, dialogue, prompts.template_kwargs)
        if found is None:
            unknown.append(
                f"{server.base_url}: the server has no /tokenize: its chat template is not compared"
                " with the recipe's"
            )
            break
        if prompts.dated and found != expected:
            if not _differ_by_date(found, expected):
                unknown.append(
                    f"{server.base_url}: the server's prompts differ from the recipe's by more than"
                    f" the date: {_difference(found, expected, tokenizer)}"
                )
                break
        elif found != expected:
            raise ConfigError(
                f"{server.base_url}: the server's chat template is not the recipe's: "
                f"{_difference(found, expected, tokenizer)}; serve the model with the recipe's "
                "(vLLM: --chat-template FILE)"
            )
    for token, number in prompts.ends.items():
        ends = _ends_turn(server, prompts.dialogues[0], number)
        if ends is None:
            unknown.append(
                f"{server.base_url}: the server accepts no logit_bias: unknown whether "
                f"{token} ends a turn there"
            )
        elif not ends:
            raise ConfigError(
                f"{server.base_url}: {token} ends a turn in the recipe, but the server continues "
                "after it; set it as an end token there (vLLM: --generation-config FOLDER, whose "
                f'generation_config.json has "eos_token_id": [{number}, ...])'
            )
    return unknown


def _tokens(
    server: Server, dialogue: list[dict[str, str]], template_kwargs: dict[str, Any]
) -> list[int] | None:
    """Return the ids of the server's prompt; None if it gives none."""
    body: dict[str, Any] = {"messages": dialogue, "add_generation_prompt": True}
    if template_kwargs:
        body["chat_template_kwargs"] = template_kwargs
    try:
        answer = server.call("tokenize", body, root=True)
    except RouteError as error:
        if error.status is None:
            raise
        if error.status == 400 and "template" in error.reply.lower():
            raise ConfigError(
                f"{server.base_url}: the server cannot render what the recipe's chat template "
                f"renders: {error}; serve the model with it (vLLM: --chat-template FILE)"
            ) from error
        return None
    found = answer.get("tokens") if isinstance(answer, dict) else None
    # Some servers have a different route of this name, without tokens.
    known = isinstance(found, list) and found and all(isinstance(each, int) for each in found)
    return found if known else None


def _ends_turn(server: Server, dialogue: list[dict[str, str]], number: int) -> bool | None:
    """Whether the server ends a turn at a token that it is forced to generate; None if unknown."""
    base = next((row for row in server.models() if not row.get("parent")), {"id": ""})
    body = {
        "model": base["id"],
        "messages": dialogue,
        "max_tokens": 2,
        "temperature": 0,
        "logit_bias": {str(number): _BIAS},
    }
    try:
        answer = server.call("chat/completions", body)
        reason = answer["choices"][0]["finish_reason"]
    except RouteError as error:
        if error.status is None:
            raise
        # The server's vocabulary is smaller: it cannot generate the token at all.
        return False if "vocab" in error.reply.lower() else None
    except (LookupError, TypeError):
        return None
    return bool(reason == "stop") if reason in ("stop", "length") else None


def _differ_by_date(found: list[int], expected: list[int]) -> bool:
    """Whether two prompts differ only by a few tokens in one place."""
    before = num_alike(found, expected)
    behind = num_alike(found[before:][::-1], expected[before:][::-1])
    return max(len(found), len(expected)) - before - behind <= _DATE


def _difference(found: list[int], expected: list[int], tokenizer: Any) -> str:
    pairs = enumerate(zip_longest(found, expected))
    place = next(at for at, (one, other) in pairs if one != other)
    # A few tokens before it show the position in the prompt.
    start = max(0, place - 4)

    def text(ids: list[int]) -> str:
        part = ids[start : place + 12]
        if tokenizer is None:
            return str(part)
        said = str(tokenizer.decode(part))
        return repr(said[:_SHOWN] + "..." * (len(said) > _SHOWN))

    return f"from token {place} on found {text(found)}, expected {text(expected)}"
