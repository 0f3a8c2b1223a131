"""Every chat template that the installed trainers ship, and tokenizers that speak them."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from dataset_builders.conversation import Message
from dataset_builders.masks.chat import Rendered
from dataset_builders.masks.chat_templates import load_template, template_message, template_names
from dataset_builders.masks.clock import CLOCK
from dataset_builders.masks.reasoning import AS_TEXT, REASONING

FOLDERS = {
    "axolotl": "axolotl/utils/chat_templates/templates",
    "trl": "trl/chat_templates",
}
FEWEST = {"axolotl": 36, "trl": 48}
"""Templates of the oldest releases tested with."""

PARTS = frozenset(
    f"trl/{name}{training}"
    for name in ("idefics3", "llava_next", "smolvlm")
    for training in ("", "_training")
)
"""Templates that take contents as lists of parts alone."""

_CONTROL = re.compile(
    r"<\|[^|<>\s]+\|>|<｜[^｜<>]+｜>|<\|?[a-z_]+\|>|<\|[a-z_]+>|</?s>|<(?:start|end)_of_[a-z]+>"  # noqa: RUF001
    r"|\[/?[A-Z_]+\]|\[\|[a-z]+\|\]"
)

_DATE = re.compile(r"strftime_now\((['\"])(.*?)\1\)")

Shape = tuple[Message, ...]


def find_templates() -> dict[str, str]:
    """Name to text of every template at hand: "trl/...", "axolotl/...", ours by their names."""
    found = {name: load_template(name) for name in template_names()}
    for library, folder in FOLDERS.items():
        spec = importlib.util.find_spec(library)
        if spec is None or spec.origin is None:
            continue
        for path in sorted((Path(spec.origin).parents[1] / folder).glob("*.jinja")):
            found[f"{library}/{path.stem}"] = path.read_text("utf-8")
    return found


def rendering(
    tokenizer: Any, messages: Sequence[Message], parts: bool = False, **options: Any
) -> str:
    """The template's own rendering."""
    as_text = options.pop("arguments_as_text", False)
    form = options.pop("reasoning_form", AS_TEXT)
    rows = [template_message(message, arguments_as_text=as_text) for message in messages]
    for row, message in zip(rows, messages, strict=True):
        row.pop(REASONING, None)
        if message.reasoning and form == AS_TEXT:
            row["content"] = f"<think>\n{message.reasoning}\n</think>\n\n{message.content}"
        elif message.reasoning:
            row[form] = message.reasoning
    if parts:
        rows = [{**row, "content": [{"type": "text", "text": row["content"]}]} for row in rows]
    dated = _DATE.sub(lambda call: repr(CLOCK.strftime(call[2])), tokenizer.chat_template)
    text = tokenizer.apply_chat_template(rows, chat_template=dated, tokenize=False, **options)
    assert isinstance(text, str)
    return text


def speaking(tokenizer: Any, template: str, parts: bool) -> tuple[Any, tuple[str, ...]]:
    """A tokenizer whose special tokens are the template's, and those that end a turn.

    They are probed for, as a user would look for them: a turn's words are followed by its
    end token, in the middle of a conversation and at its end.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokens = sorted(set(_CONTROL.findall(template)))
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    tokenizer.chat_template = template
    probe = (Message("user", "Q1"), Message("assistant", "Q2"), Message("user", "Q3"))
    ends = []
    for messages in (probe, probe[:2]):
        after = rendering(tokenizer, messages, parts).partition("Q2")[2].partition("Q3")[0]
        if match := _CONTROL.match(after.lstrip()):
            ends.append(match[0])
    # What ends a call is in no plain turn. These are the tokens of the models' own
    # generation settings.
    ends += [
        token for token in ("<|call|>", "<|observation|>", "<|tool_response>") if token in template
    ]
    ends = list(dict.fromkeys(ends)) or ["</s>"]
    tokenizer.eos_token = ends[0]
    return tokenizer, tuple(ends[1:])


STRIPS = (str, str.strip, str.rstrip, lambda text: text.lstrip("\n"))
"""What templates do to contents."""


class Oracle:
    """What a rendering must look like, found without marks, sentinels or habits.

    Args:
        tokenizer: The tokenizer.
        ends: Tokens that end a turn.
        messages: The conversation.
        parts: Whether the template takes contents as parts.
        tools: JSON text of the function schemas, or "".
        form: The key that the template reads reasoning from, or `AS_TEXT`.
    """

    def __init__(
        self,
        tokenizer: Any,
        ends: Sequence[str],
        messages: Shape,
        parts: bool,
        tools: str,
        form: str = AS_TEXT,
    ) -> None:
        self._form = form
        self._tokenizer, self._messages, self._parts = tokenizer, messages, parts
        self._ends, self._tools = ends, json.loads(tools) if tools else None
        self._as_text = False

    def check(self, rendered: Rendered, rewritten: bool) -> None:
        """Check text, spans, literals and the count of turns off their prompts."""
        text, trained = rendered.text, [i for i, m in enumerate(self._messages) if m.trained]
        self._as_text = text != self._text(self._messages)
        assert text == self._text(self._messages)
        assert len(rendered.spans) == len(trained)
        assert all(left.end <= right.start for left, right in pairwise(rendered.spans))
        prompts = {index: self._prompt(text, index) for index in trained}
        if rewritten:
            self._check_words(rendered, prompts)
        else:
            self._check_contents(rendered, prompts)
        starts = [span.start for span in rendered.spans]
        differ = sum(
            length != start for length, start in zip(prompts.values(), starts, strict=True)
        )
        assert rendered.off_prompt == differ

    def _text(self, messages: Sequence[Message], prompt: bool = False) -> str:
        options = {
            "tools": self._tools,
            "add_generation_prompt": prompt,
            "reasoning_form": self._form,
        }
        return rendering(
            self._tokenizer, messages, self._parts, arguments_as_text=self._as_text, **options
        )

    def _prompt(self, text: str, index: int) -> int | None:
        prompt = self._text(self._messages[:index], prompt=True)
        return len(prompt) if text.startswith(prompt) else None

    def _end(self, text: str, position: int) -> int:
        return min(
            place + len(token) for token in self._ends if (place := text.find(token, position)) >= 0
        )

    def _check_contents(self, rendered: Rendered, prompts: dict[int, int | None]) -> None:
        places = self._contents(rendered.text)
        for span, (index, prompt) in zip(rendered.spans, prompts.items(), strict=True):
            start, end = places[index]
            gap = rendered.text[prompt:start] if prompt is not None else "no prompt"
            # Of a template that knows no prompts, the header is not the model's own.
            knows = prompt != len(self._text(self._messages[:index]))
            assert span.start == (
                prompt if prompt is not None and (knows or not gap.strip()) else start
            )
            assert span.end == self._end(rendered.text, end)
        tokens = re.compile("|".join(map(re.escape, self._tokenizer.get_added_vocab())))
        spelt = [
            (start + match.start(), start + match.end())
            for start, end in places.values()
            for match in tokens.finditer(rendered.text[start:end])
        ]
        assert [tuple(literal) for literal in rendered.literals] == sorted(spelt)

    def _contents(self, text: str) -> dict[int, tuple[int, int]]:
        """Where contents stand: by a twin of the conversation whose contents all differ.

        The twin's text without its contents is the template's own text; with the contents
        put between, as they are or stripped, it must give the text: so the parse of a
        rendering gives the messages back.
        """
        twin = tuple(Message(m.role, f"Q{i}Z", m.trained) for i, m in enumerate(self._messages))
        skeleton = self._text(twin)
        # Some templates move the system turn into the last turn of the user.
        order = sorted(range(len(twin)), key=lambda index: skeleton.find(f"Q{index}Z"))
        for strips in product(STRIPS, repeat=3):
            strip = dict(zip(("user", "assistant", "system"), strips, strict=True))
            built, rest, places = "", skeleton, {}
            for index in order:
                before, found, rest = rest.partition(f"Q{index}Z")
                assert found, "the template left a turn out"
                start = len(built) + len(before)
                built += before + strip[twin[index].role](self._messages[index].content)
                places[index] = start, len(built)
            if built + rest == text:
                return places
        raise AssertionError("the template does more than to strip contents")

    def _check_words(self, rendered: Rendered, prompts: dict[int, int | None]) -> None:
        """Each trained word shown lies in its turn's span, and no other word in any."""
        spans = dict(zip(prompts, rendered.spans, strict=True))
        words = [set(_words(message)) for message in self._messages]
        for index, own in enumerate(words):
            others = set().union(*words[:index], *words[index + 1 :], _words(self._tools))
            for word in own - others:
                for match in re.finditer(rf"\b{word}\b", rendered.text):
                    inside = [i for i, s in spans.items() if s.start <= match.start() < s.end]
                    assert inside == ([index] if index in spans else []), (word, rendered)
        for index, span in spans.items():
            assert rendered.text[: span.end].endswith(tuple(self._ends))
            # What is generated ends with the first end token.
            assert span.end == self._end(rendered.text, span.start)
            shown = rendered.text[span.start : span.end]
            for call in self._messages[index].tool_calls:
                assert all(word in shown for word in (call.name, *_words(call.arguments)))
            prompt = prompts[index]
            if prompt is not None and prompt != len(self._text(self._messages[:index])):
                assert span.start == prompt


def _words(value: object) -> list[str]:
    if isinstance(value, Message):
        said = f"{value.reasoning or ''} {value.content}"
        return _words(said) + _words([call.arguments for call in value.tool_calls])
    return re.findall(r"\w+", value if isinstance(value, str) else json.dumps(value))
