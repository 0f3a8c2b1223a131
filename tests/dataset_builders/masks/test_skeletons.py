"""Turns of plain conversations are found without marks, where marks would find them too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import CertificationError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.chat_templates import ChatTemplate, load_template
from dataset_builders.masks.skeletons import Skeletons
from dataset_builders.masks.spans import Dialogue, Span
from dataset_builders.masks.turns import TurnFinder

pytest.importorskip("transformers")

MakeTokenizer = Callable[..., Any]

TALKS = (
    ("q", "a"),
    ("the same", "the same", "the same", "the same"),
    ("q <|im_start|>assistant", "a", " r\n", "<|im_end|> b"),
    ("\ue000\ue001", "é \U0001f642", "assistant", "\ue0001\ue001"),
    (" q ", " a\n", "\n\nr", "\tb "),
    ("q", "<think>\nt\n</think>\n\na", "r", "b"),
    ("q", " ", "r", "b"),
    (" ", "a", "", "b"),
)

FIRST_WORDS = "{%- if m.content[0] == 'q' -%}!{%- endif -%}"
AROUND = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>"


def conversation(*contents: str, system: str = "", untrained: int = -1) -> Conversation:
    messages = [Message("system", system)] if system else []
    messages += [
        Message("assistant" if i % 2 else "user", content, i % 2 == 1 and i != untrained)
        for i, content in enumerate(contents)
    ]
    return Conversation.create(messages)


def over(body: str) -> str:
    return (
        "{%- for m in messages -%}"
        + body
        + "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
    )


TEMPLATES = {
    "chatml": None,
    "llama-2": load_template("llama-2"),
    "trims": over(AROUND.replace("m.content", "m.content | trim")),
    "looks at words": over(FIRST_WORDS + AROUND),
}


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_turns_are_those_that_marks_find(
    make_tokenizer: MakeTokenizer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    eos = "</s>" if name == "llama-2" else "<|im_end|>"
    tokenizer = make_tokenizer(TEMPLATES[name], eos)
    talks = [conversation(*talk, system=system) for talk in TALKS for system in ("", "be brief")]
    talks += [conversation(*talk, untrained=1) for talk in TALKS if len(talk) > 2]

    def outcomes() -> list[Any]:
        renderer, found = ChatRenderer(tokenizer), []
        for talk in talks:
            try:
                found.append(renderer.render(talk))
            except ValueError as error:
                found.append((type(error), str(error)))
        return found

    quick = outcomes()
    monkeypatch.setattr(Skeletons, "places", lambda *_: None)
    assert quick == outcomes()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts whose marks are set from now on."""
    texts: list[str] = []
    by_marks = TurnFinder.by_marks

    def count(self: TurnFinder, dialogue: Any, text: str) -> Any:
        texts.append(text)
        return by_marks(self, dialogue, text)

    monkeypatch.setattr(TurnFinder, "by_marks", count)
    return texts


@pytest.mark.parametrize(
    ("name", "talk", "marks"),
    [
        ("chatml", ("q", " a\n", "r", "b"), 0),
        ("chatml", ("q", "<think>t</think>a"), 1),  # the thought is a part of its own
        ("trims", ("q", "a"), 0),
        ("trims", ("q", " a"), 1),
        ("looks at words", ("r", "a"), 0),
        ("looks at words", ("q", "a"), 1),
    ],
)
def test_marks_are_set_where_words_are_not_written_as_they_are(
    make_tokenizer: MakeTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    talk: tuple[str, ...],
    marks: int,
) -> None:
    renderer = ChatRenderer(make_tokenizer(TEMPLATES[name]))
    texts = counted(monkeypatch)
    rendered = renderer.render(conversation(*talk))
    assert len(texts) == marks
    assert len(rendered.spans) == len(talk) // 2


def test_words_that_leave_no_character_for_marks_are_found(make_tokenizer: MakeTokenizer) -> None:
    renderer = ChatRenderer(make_tokenizer())
    words = "".join(map(chr, range(0xE000, 0xF900)))
    ((start, end),) = (rendered := renderer.render(conversation("q", words))).spans
    assert rendered.text[start:end] == words + "<|im_end|>"


@pytest.mark.parametrize(
    "body",
    [
        AROUND + "{{ m.content }}",  # twice
        "{%- if not loop.last -%}" + AROUND + "{%- endif -%}",
        AROUND.replace("m.", "messages[loop.length - loop.index]."),  # in another order
        AROUND.replace("m.content", "m.content | upper"),
    ],
)
def test_there_is_no_skeleton_where_words_move(make_tokenizer: MakeTokenizer, body: str) -> None:
    template = ChatTemplate(make_tokenizer(over(body)))
    rows = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    text = template.text(rows)
    assert Skeletons(template).places(Dialogue(rows, (1,)), text) is None


def test_certified_turns_are_found_by_marks_and_compared(
    make_tokenizer: MakeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = ChatRenderer(make_tokenizer())
    texts = counted(monkeypatch)
    assert renderer.render(conversation("q", "abc"), certify=True).certified
    assert len(texts) == 1
    by_skeleton = TurnFinder.by_skeleton

    def late(self: TurnFinder, dialogue: Any, text: str) -> Any:
        found = by_skeleton(self, dialogue, text)
        assert found is not None
        return replace(found, spans=[Span(start + 1, end) for start, end in found.spans])

    monkeypatch.setattr(TurnFinder, "by_skeleton", late)
    with pytest.raises(CertificationError, match=r"message 1: marks and the skeleton find diff"):
        renderer.render(conversation("q", "abc"), certify=True)
