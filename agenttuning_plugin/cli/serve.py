"""`agenttuning serve`: print or run the server of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agenttuning_plugin.console import console, errors, plain
from agenttuning_plugin.serving.command import ServeCommand, ServeOptions, serve_command
from agenttuning_plugin.serving.process import LOG, check_port, ended, running, wait_until_up
from agenttuning_plugin.serving.programs import VLLM, find_server
from agenttuning_plugin.serving.run_folder import ServedModel, read_run


def serve(
    run: Annotated[
        Path, typer.Argument(help="Output folder of a run, or the folder of an adapter or model.")
    ],
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the server's command instead of running it.")
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(help="vllm or transformers. [default: vllm if it is installed]"),
    ] = None,
    merged: Annotated[
        Path | None, typer.Option(help="Folder that `agenttuning merge` made of the run.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="Model name on the server. [default: the folder's name]")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Precision, such as bfloat16. [default: as trained]")
    ] = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum tokens of prompt and answer. "
            "[default: the model's maximum, at most 16384]",
        ),
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option(help="Further argument for the server, as --argument=--FLAG; repeatable."),
    ] = None,
) -> None:
    """Serve a trained model with the prompts, end tokens and precision of training."""
    program = find_server(server)
    model = read_run(run.expanduser(), merged.expanduser() if merged else None)
    options = ServeOptions(host, port, name, dtype, max_model_len, tuple(argument or ()))
    command = serve_command(model, program, options)
    if print_only:
        print(command)
        _show_notes(command)
        return
    check_port(host, port)
    console.print(plain(str(command)), soft_wrap=True, highlight=False)
    _show_notes(command)
    _run(command, model, program.kind)


def _run(command: ServeCommand, model: ServedModel, kind: str) -> None:
    from agenttuning_plugin.evaluation.served_prompts import compare_prompts, prompts_of
    from agenttuning_plugin.evaluation.server import Server
    from agenttuning_plugin.serving.command import FOLDER

    log = model.folder / FOLDER / LOG
    with running(command, log) as process:
        console.print(f"starting; log: {log}", soft_wrap=True, highlight=False)
        seconds = wait_until_up(process, command, log)
        console.print(f"up after {seconds:.0f} s: {command.base_url}", soft_wrap=True)
        if kind == VLLM:  # `transformers serve` does not report a prompt's tokens.
            prompts = prompts_of(model.tokenizer, model.end_of_turn)
            unknown = compare_prompts(Server(command.base_url), prompts, model.tokenizer)
            for line in unknown or ["prompts and end tokens are those of training"]:
                console.print(plain(line), soft_wrap=True)
        at = f"{command.base_url} --model-name {command.model_name}"
        console.print(f"agenttuning chat {at}", soft_wrap=True, highlight=False)
        console.print(
            f"agenttuning evaluate --model {at} --suite held-in", soft_wrap=True, highlight=False
        )
        console.print("Ctrl-C ends the server", soft_wrap=True)
        process.wait()
        raise ended(process, log)


def _show_notes(command: ServeCommand) -> None:
    for line in command.notes:
        errors.print(f"[yellow]note:[/yellow] {plain(line)}", soft_wrap=True)
