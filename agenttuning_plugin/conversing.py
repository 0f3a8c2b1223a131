"""Talking to a model on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from dataset_builders.collection.answer import read_answer
from dataset_builders.conversation import Message
from dataset_builders.encoding.coding import Coder
from dataset_builders.errors import MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.reasoning import opens_thought

if TYPE_CHECKING:
    from evaluators.base import Subject


def converse(
    subject: Subject, console: Console, prompt: str | None, max_new_tokens: int, temperature: float
) -> None:
    """Answer one prompt, or hold a dialogue until the end of input.

    Args:
        subject: The model.
        console: Where questions are asked; answers are streamed to standard output.
        prompt: The one prompt to answer, or none for a dialogue.
        max_new_tokens: Longest answer in tokens.
        temperature: Sampling temperature; 0 takes the likeliest token.
    """
    renderer = ChatRenderer(subject.tokenizer, subject.end_of_turn)
    history: list[Message] = []
    if prompt is None:
        console.print("[dim]An empty line starts anew, Ctrl-D ends.[/dim]")
    while True:
        text = prompt if prompt is not None else _ask(console)
        if text is None:
            return
        if not text.strip():
            history.clear()
            continue
        history.append(Message("user", text))
        try:
            answer = _answer(subject, renderer, history, max_new_tokens, temperature)
        except MaskError as error:
            console.print(f"[red]{error}[/red]")
            history.pop()
            continue
        said = read_answer(answer, opened=opens_thought(renderer.prompt(history)))
        history.append(Message("assistant", said, reasoning=said.reasoning or None))
        if prompt is not None:
            return


def _ask(console: Console) -> str | None:
    try:
        return console.input("[bold]> [/bold]")
    except EOFError:
        return None


def _answer(
    subject: Subject,
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
