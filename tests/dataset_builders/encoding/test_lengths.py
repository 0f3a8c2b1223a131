"""Conversations that are too long: whole turns go, and every one is counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.encoding.lengths import exchanges, shorten, split, steps
from dataset_builders.encoding.tokens import Encoder, TokenReport

Turns = list[tuple[str, int, bool]]


def talk(turns: Turns) -> Conversation:
    """Turn number n says n, padded to the length that is wanted."""
    return Conversation.create(
        Message(role, f"{n}".ljust(length, "."), trained)  # type: ignore[arg-type]
        for n, (role, length, trained) in enumerate(turns)
    )


def numbers(conversation: Conversation) -> list[int]:
    return [int(message.content.strip(".")) for message in conversation.messages]


OVERHEAD = 3


def encode(conversation: Conversation) -> tuple[Conversation, int]:
    """A row as long as its characters, plus what a template writes around each turn."""
    size = sum(len(message.content) + OVERHEAD for message in conversation.messages)
    return conversation, size


def ends(conversation: Conversation) -> list[int]:
    found, total = [], 0
    for message in conversation.messages:
        total += len(message.content) + OVERHEAD
        if message.trained:
            found.append(total)
    return found


CHAT = talk([("system", 9, False)] + [("user", 10, False), ("assistant", 14, True)] * 4)
# Rules, their acknowledgement, the task, and actions with what is observed.
AGENT = talk(
    [("user", 20, False), ("assistant", 2, False), ("user", 10, False), ("assistant", 10, True)]
    + [("user", 20, False), ("assistant", 10, True)] * 3
)


def test_exchanges_begin_where_someone_asks() -> None:
    assert [(part.start, part.stop, part.trained) for part in exchanges(CHAT.messages)] == [
        *((1, 3, 1), (3, 5, 1), (5, 7, 1), (7, 9, 1))
    ]
    call = Message("assistant", "", True, (ToolCall("f", "{}"),))
    tools = [Message("user", "q"), call, Message("tool", "r"), Message("assistant", "a", True)]
    assert exchanges([*tools, *tools]) == [(0, 4, 2), (4, 8, 2)]


def test_split_begins_each_piece_with_the_system_turn_and_a_question() -> None:
    rows, removed = split(CHAT, ends(CHAT), 75, encode)
    assert [numbers(row) for row in rows] == [[0, 1, 2, 3, 4], [0, 5, 6, 7, 8]]
    assert removed == 0
    rows, removed = split(CHAT, ends(CHAT), 71, encode)
    assert [numbers(row) for row in rows] == [[0, n, n + 1] for n in (1, 3, 5, 7)]
    assert (split(CHAT, ends(CHAT), 41, encode)) == ([], 4)


def test_split_leaves_out_an_exchange_that_is_too_long_alone() -> None:
    turns: Turns = [("user", 5, False), ("assistant", 5, True)] * 3
    turns[3] = ("assistant", 500, True)
    conversation = talk(turns)
    rows, removed = split(conversation, ends(conversation), 60, encode)
    assert [numbers(row) for row in rows] == [[0, 1], [4, 5]]
    assert removed == 1


def test_shorten_keeps_the_instruction_and_the_latest_turns() -> None:
    total = encode(AGENT)[1]
    found = shorten(AGENT, ends(AGENT), total - 1, encode)
    assert found is not None
    assert numbers(found[0]) == [0, 1, 2, 3, 6, 7, 8, 9]
    assert found[1] == 1
    found = shorten(AGENT, ends(AGENT), total - 40, encode)
    assert found is not None
    assert numbers(found[0]) == [0, 1, 2, 3, 8, 9]
    assert found[1] == 2
    # The end of the trajectory stays, or nothing does.
    assert shorten(AGENT, ends(AGENT), total - 73, encode) is None
    found = shorten(CHAT, ends(CHAT), 75, encode)
    assert found is not None
    assert numbers(found[0]) == [0, 1, 2, 7, 8]


def calls(sizes: list[tuple[int, int]], ids: bool = True, system: bool = True) -> Conversation:
    """A task, and per step a turn of calls whose results have the sizes given."""
    messages = [Message("system", "s")] * system + [Message("user", "task")]
    for n, (number, size) in enumerate(sizes):
        names = [f"{n}-{k}" if ids else "" for k in range(number)]
        made = tuple(ToolCall("f", "{}", name) for name in names)
        messages.append(Message("assistant", "call", True, made))
        messages += [Message("tool", "r" * size, tool_call_id=name) for name in names]
    return Conversation.create([*messages, Message("assistant", "done", True)])


def test_shorten_leaves_out_tool_calls_with_their_results() -> None:
    conversation = calls([(1, 50), (2, 500), (1, 50)])
    # The large results go with their calls, although only trained turns' ends are known.
    found = shorten(conversation, ends(conversation), 160, encode)
    assert found is not None
    messages = conversation.messages
    assert found[0].messages == messages[:4] + messages[7:]
    assert found[1] == 1
    assert len(exchanges(messages)) == 1  # what `split` goes by


def test_a_late_result_stays_with_its_call() -> None:
    two = (ToolCall("f", "{}", "a"), ToolCall("f", "{}", "b"))
    messages = [
        *(Message("user", "q"), Message("assistant", "", True, two)),
        *(Message("tool", "r", tool_call_id="a"), Message("assistant", "wait", True)),
        *(Message("tool", "r", tool_call_id="b"), Message("assistant", "done", True)),
    ]
    assert [(part.start, part.stop) for part in steps(messages)] == [(0, 5), (5, 6)]
    # Observations without calls: each with the action that answers it, as ever.
    plain = talk(
        [("user", 1, False), ("assistant", 1, True)]
        + [("tool", 1, False), ("assistant", 1, True)] * 2
    )
    assert steps(plain.messages) == exchanges(plain.messages)


@settings(max_examples=200, deadline=None, database=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 90)), min_size=1, max_size=8),
    ids=st.booleans(),
    system=st.booleans(),
    limit=st.integers(20, 500),
)
def test_shortened_tool_calls_are_valid(
    sizes: list[tuple[int, int]], ids: bool, system: bool, limit: int
) -> None:
    conversation = calls(sizes, ids, system)
    if encode(conversation)[1] <= limit or len(sizes) == 1:
        return  # nothing to leave out
    found = shorten(conversation, ends(conversation), limit, encode)
    instruction = system + 2 + sizes[0][0]
    last = encode(Conversation.create(conversation.messages[:instruction]))[1] + 4 + OVERHEAD
    assert (found is not None) == (last <= limit)
    if found is None:
        return
    kept = list(found[0].messages)
    assert kept[:instruction] == list(conversation.messages[:instruction])
    assert sum(message.trained for message in kept) + found[1] == len(sizes) + 1
    while kept:
        message = kept.pop(0)
        assert message.role != "tool"
        for call in message.tool_calls:
            result = kept.pop(0)
            assert (result.role, result.tool_call_id) == ("tool", call.id)


any_turns = st.lists(
    st.tuples(
        st.sampled_from(["user", "assistant", "tool"]), st.integers(1, 60), st.booleans()
    ).map(lambda turn: (turn[0], turn[1], turn[2] and turn[0] == "assistant")),
    min_size=1,
    max_size=20,
)


@settings(max_examples=300, deadline=None, database=None)
@given(turns=any_turns, system=st.booleans(), limit=st.integers(5, 200), error=st.integers(-9, 9))
def test_any_conversation_loses_only_what_is_counted(
    turns: Turns, system: bool, limit: int, error: int
) -> None:
    conversation = talk([("system", 4, False)] * system + turns)
    if not conversation.num_trained:
        return
    guesses = [max(1, end + error) for end in ends(conversation)]  # a guide only
    head = [0] * system
    rows, removed = split(conversation, guesses, limit, encode)
    seen: list[int] = []
    for row in rows:
        assert encode(row)[1] <= limit
        assert row.messages[-1].trained
        assert numbers(row)[: len(head)] == head
        body = numbers(row)[len(head) :]
        assert body == list(range(body[0], body[-1] + 1))
        assert row.messages[len(head)].role != "assistant" or body[0] == len(head)
        seen += body
    assert seen == sorted(set(seen))
    assert sum(row.num_trained for row in rows) + removed == conversation.num_trained

    found = shorten(conversation, guesses, limit, encode)
    if found is not None:
        row, removed = found
        assert encode(row)[1] <= limit
        assert row.num_trained + removed == conversation.num_trained
        kept = numbers(row)
        assert kept == sorted(set(kept))
        assert row.messages[-1] == conversation.messages[-1]
        first = next(n for n, message in enumerate(conversation.messages) if message.trained)
        assert kept[: first + 1] == list(range(first + 1))


@pytest.mark.parametrize("name", ["small", "llama2"])
def test_rows_of_real_templates_fit_and_end_with_what_is_trained(
    request: pytest.FixtureRequest, name: str
) -> None:
    tokenizer = request.getfixturevalue(f"{name}_tokenizer")
    conversation = talk(
        [("system", 10, False)] + [("user", 90, False), ("assistant", 60, True)] * 9
    )
    whole = next(Encoder(tokenizer, max_length=10**6).encode([conversation], TokenReport()))
    limit = len(whole.input_ids) // 3
    report = TokenReport()
    rows = list(Encoder(tokenizer, max_length=limit, policy="split").encode([conversation], report))
    assert (report.kept, report.split, report.turns_removed) == (1, 1, 0)
    assert report.pieces == report.rows == len(rows) in (3, 4, 5)
    assert report.trained_tokens == whole.num_trained
    end = int(whole.input_ids[whole.labels >= 0][-1])
    for row in rows:
        assert len(row.input_ids) <= limit
        assert row.labels[row.labels >= 0][-1] == end
    assert f"1 split into {len(rows)}" in report.summary()

    report = TokenReport()
    encoder: Any = Encoder(tokenizer, max_length=limit, policy="shorten")
    (row,) = encoder.encode([conversation], report)
    assert len(row.input_ids) <= limit
    assert (report.kept, report.shortened, report.rows) == (1, 1, 1)
    taught = int((row.labels == end).sum())
    assert taught + report.turns_removed == 9
    assert report.turns_removed > 0
    # First question and last answer are the conversation's own.
    first = whole.input_ids[: int((whole.labels >= 0).argmax())]
    assert row.input_ids[: len(first)].tolist() == first.tolist()
    assert row.input_ids[-20:].tolist() == whole.input_ids[-20:].tolist()
