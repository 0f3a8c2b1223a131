"""Interactive chat with a model in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from agenttuning_plugin.console import plain
from dataset_builders.conversation import Message
from dataset_builders.encoding.coding import Coder
from dataset_builders.endpoints.answer import Answer, read_answer
from dataset_builders.errors import MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.reasoning import opens_thought
from evaluators.models.interface import Decoding, LanguageModel

if TYPE_CHECKING:
    from evaluators.evaluator import EvalTarget

_Answers = Callable[[list[Message]], Answer]


def converse(
    subject: EvalTarget,
    console: Console,
    prompt: str | None,
    max_new_tokens: int,
    temperature: float,
) -> None:
    """Answer one prompt, or chat until the end of input.

    Args:
        subject: The model, local or on a server.
        console: Console for input; answers are streamed to standard output.
        prompt: The prompt to answer, or None for a dialogue.
        max_new_tokens: Maximum tokens of an answer.
        temperature: Sampling temperature; 0 for greedy decoding.
    """
    answers = _answers(subject, max_new_tokens, temperature)
    history: list[Message] = []
    if prompt is None:
        console.print("[dim]An empty line starts a new conversation, Ctrl-D ends.[/dim]")
    while True:
        text = prompt if prompt is not None else _ask(console)
        if text is None:
            return
        if not text.strip():
            history.clear()
            continue
        history.append(Message("user", text))
        try:
            answer = answers(history)
        except MaskError as error:
            console.print(f"[red]{plain(str(error))}[/red]")
            history.pop()
            continue
        history.append(Message("assistant", answer, reasoning=answer.reasoning or None))
        if prompt is not None:
            return


def _answers(subject: EvalTarget, max_new_tokens: int, temperature: float) -> _Answers:
    if subject.server is not None:
        return partial(_served_answer, subject.server, Decoding(max_new_tokens, temperature))
    renderer = ChatRenderer(subject.tokenizer, subject.end_of_turn)

    def answer(history: list[Message]) -> Answer:
        text = _answer(subject, renderer, history, max_new_tokens, temperature)
        return read_answer(text, opened=opens_thought(renderer.prompt(history)))

    return answer


def _served_answer(server: LanguageModel, decoding: Decoding, history: list[Message]) -> Answer:
    (text,) = server.chat([history], decoding)
    if text is None:
        raise MaskError(
            "the conversation exceeds the server's context; an empty line starts a new one"
        )
    print(text)
    return read_answer(text)


def _ask(console: Console) -> str | None:
    try:
        return console.input("[bold]> [/bold]")
    except EOFError:
        return None


def _answer(
    subject: EvalTarget,
    renderer: ChatRenderer,
    history: list[Message],
    max_new_tokens: int,
    temperature: float,
) -> str:
    import torch
    from transformers import GenerationConfig, TextStreamer

    tokenizer = subject.tokenizer
    prompt = Coder(tokenizer).prompt_ids(renderer.render_prompt(history))
    ends = [tokenizer.convert_tokens_to_ids(token) for token in renderer.end_tokens]
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        temperature=temperature if temperature > 0 else None,
        eos_token_id=ends,
        pad_token_id=ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        use_cache=True,
    )
    ids = torch.tensor([prompt], device=subject.device)
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    with torch.no_grad():
        out = subject.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            streamer=streamer,
        )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()
