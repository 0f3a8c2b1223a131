"""Two ways have to agree: a template that breaks one of them stops a build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import CertificationError, DataError, MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.layout import Layout

pytest.importorskip("transformers")

MakeTokenizer = Callable[..., Any]


def conversation(*contents: str) -> Conversation:
    return Conversation.create(
        [
            Message("assistant" if i % 2 else "user", content, bool(i % 2))
            for i, content in enumerate(contents)
        ],
        where="chats.jsonl:7",
    )


CHATML = (
    "{%- for m in messages -%}<|im_start|>{{ m.role }}{{ '\\n' }}{{ m.content }}<|im_end|>"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"
)


def test_a_way_that_goes_astray_is_caught(
    make_tokenizer: MakeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = ChatRenderer(make_tokenizer())
    agreed = renderer.render(conversation("q", "a"), certify=True)
    assert (agreed.way, agreed.certified) == ("marks", True)
    true_start = Layout.start

    def one_late(self: Layout, text: str, words: int, leading: int) -> int | None:
        start = true_start(self, text, words, leading)
        return None if start is None else start + 1

    monkeypatch.setattr(Layout, "start", one_late)
    assert not renderer.render(conversation("q", "abc")).certified
    with pytest.raises(CertificationError) as error:
        renderer.render(conversation("q", "abc" * 1000), certify=True)
    words = str(error.value)
    assert "chats.jsonl:7: message 1: marks and sentinels find different" in words
    assert "marks: " in words
    assert "sentinels: " in words
    assert "assistant\\na'«'bcabc" in words
    assert "assistant\\n'«'abcabc" in words
    assert len(words) < 2500
    # Stops a build: it is an error of the data, not a conversation to leave out.
    assert isinstance(error.value, DataError)
    assert not isinstance(error.value, MaskError)


def test_lost_marks_are_certified_always(make_tokenizer: MakeTokenizer) -> None:
    # Cuts answers at twelve characters, which the marks would change.
    cut = CHATML.replace("{{ m.content }}", "{{ m.content[:12] }}")
    renderer = ChatRenderer(make_tokenizer(cut))
    rendered = renderer.render(conversation("q", "abcdefghijklmnop", "r", "a"))
    assert (rendered.way, rendered.certified, rendered.off_prompt) == ("sentinels", True, 0)
    assert [rendered.text[start:end] for start, end in rendered.spans] == [
        "abcdefghijkl<|im_end|>",
        "a<|im_end|>",
    ]


def test_one_way_alone_is_not_enough(make_tokenizer: MakeTokenizer) -> None:
    # No prompt to be asked for, and the answer is written in another way than it was given.
    tokenizer = make_tokenizer(
        "{%- for m in messages -%}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{%- endfor -%}"
    )
    renderer = ChatRenderer(tokenizer)
    assert renderer.render(conversation("q", "ab"), certify=True).way == "marks"
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ m.content }}", "{{ m.content | reverse if m.role == 'assistant' else m.content }}"
    )
    with pytest.raises(MaskError, match=r"only one method finds it \(sentinels\)") as error:
        renderer.render(conversation("q", "ab"))
    assert error.value.reason == "template"


def test_off_prompt_is_counted(make_tokenizer: MakeTokenizer) -> None:
    # The prompt opens a thought that no turn has.
    template = CHATML.replace(
        "<|im_start|>assistant{{ '\\n' }}{%- endif",
        "<|im_start|>assistant{{ '\\n<think>' }}{%- endif",
    )
    renderer = ChatRenderer(make_tokenizer(template))
    rendered = renderer.render(conversation("q", "a", "r", "b"), certify=True)
    assert rendered.off_prompt == 2
    assert [rendered.text[s:e] for s, e in rendered.spans] == ["a<|im_end|>", "b<|im_end|>"]
    assert renderer.render(conversation("q", "a", "r", "b")).off_prompt == 0
