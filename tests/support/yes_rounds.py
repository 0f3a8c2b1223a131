"""Rounds of a tiny model that learns to say "y", with TRL as the trainer.

The recipe's agent data say "n" in two of three conversations: trained on them the model says "n"
where it decodes greedily, and sometimes "y" where it samples. Only "y" is rewarded.

`python yes_rounds.py FOLDER MODEL` kills a process of these rounds after each line that it says, in
turn, until one comes to its end; the result is that of a process that is left alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults
from agenttuning_plugin.rounds.loop import RoundsResult, run_rounds
from agenttuning_plugin.rounds.settings import RoundsConfig
from agenttuning_plugin.rounds.training import TrainingJob

WORLD = '''"""Say y."""

from dataset_builders.environments.base import OracleStep, ResetResult, StepResult, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue


class World(TextEnvironment):
    name = "agree"
    idle_action = "n"
    isolation = "inline"

    def task_ids(self, split):
        return [f"agree-{split}-{n}" for n in range({"train": 12, "dev": 8, "test": 8}[split])]

    def task_keys(self, task_id):
        return (task_id,)

    def _begin(self, task_id):
        text = f"is it {task_id}?"
        return ResetResult(text, text)

    def _act(self, action):
        return StepResult(exit_reason="answered", score=float(action == "y"))

    def oracle(self):
        yield OracleStep("", "y")


class Agree(Dialogue):
    world = World
    round_limit = 1
    max_new_tokens = 4

    def read(self, said):
        return said

    def write(self, move):
        return move.action
'''


def write_rounds(folder: Path) -> dict[str, Any]:
    """Write environment and data; returns the section of a recipe."""
    world = folder / "agree.py"
    world.write_text(WORLD, "utf-8")
    sides = {
        "agent": [f"is it agree-old-{n}?" for n in range(24)],
        "general": [f"what is {n}?" for n in range(24)],
    }
    for side, questions in sides.items():
        answers = ("y", "n", "n") if side == "agent" else ("it is",)
        rows = [
            {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answers[n % len(answers)]},
                ]
            }
            for n, question in enumerate(questions)
        ]
        (folder / f"{side}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return {
        "eta": 0.5,
        "agent": str(folder / "agent.jsonl"),
        "general": str(folder / "general.jsonl"),
        "holdout": 4,
        "evaluators": [
            {"type": "agent_task", "environment": f"{world}:Agree", "num_tasks": 8},
            {"type": "general_loss"},
        ],
    }


def train(job: TrainingJob, cache: Path) -> None:
    """Train a round with TRL's SFTTrainer."""
    import trl
    from transformers import AutoTokenizer

    args = trl.SFTConfig(
        output_dir=str(job.out),
        max_steps=30,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        seed=1,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
        **sft_defaults(),
    )
    tokenizer = AutoTokenizer.from_pretrained(job.base_model)
    config = AgentTuningConfig(**job.section)
    run = TrainingRun(config, tokenizer, args, max_length=64, cache=cache)
    trainer = trl.SFTTrainer(
        job.base_model,
        args,
        train_dataset=run.train_dataset,
        data_collator=run.data_collator,
        processing_class=tokenizer,
    )
    run.attach(trainer)
    trainer.train()
    trainer.save_model()


def play(
    section: dict[str, Any],
    model: Path,
    out: Path,
    say: Callable[[str], None] = lambda _: None,
    start: Path | None = None,
    training: dict[str, Any] | None = None,
    **settings: Any,
) -> RoundsResult:
    """Run the rounds, by default two from the base on the kept episodes alone."""
    given: dict[str, Any] = {
        "env": section["evaluators"][0]["environment"],
        "rounds": 2,
        "attempts": 6,
        "temperature": 1.0,
        "data": "replace",
        "eval_tasks": 8,
        "num_tasks": 12,
    }
    trains = partial(train, cache=out.parent / "prepared")
    config = RoundsConfig(**given | settings)
    return run_rounds(
        config, section, str(model), trains, out, start=start, settings=training, say=say
    )


def _session(run: Callable[[Callable[[str], None]], object], lines: int | None) -> bool:
    """Whether a process came to its end; else it was killed after so many lines."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or status == 0, "a session failed"
        return not os.WIFSIGNALED(status)
    said = 0

    def say(line: str) -> None:
        nonlocal said
        said += 1
        if said == lines:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        run(say)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Compare rounds that are killed after each line with rounds that are left alone."""
    # Loaded before the forks, so that each process begins at once.
    import datasets  # noqa: F401
    import transformers
    import trl

    import evaluators.models.chat_model
    import evaluators.models.token_model
    import evaluators.training.callback  # noqa: F401

    _ = trl.SFTTrainer, trl.SFTConfig, transformers.LlamaForCausalLM, transformers.AutoTokenizer
    folder, model = Path(sys.argv[1]), Path(sys.argv[2])
    section = write_rounds(folder)
    alone, killed = folder / "alone", folder / "killed"
    assert _session(lambda say: play(section, model, alone, say), None)
    kills = 0
    # A session says the line of the phase that it resumes at first; after three lines at the latest
    # a phase has ended.
    while not _session(lambda say: play(section, model, killed, say), kills % 4 + 1):
        kills += 1
        assert kills < 20, "the rounds come to no end"
    facts = [json.loads((out / "state.json").read_text("utf-8")) for out in (alone, killed)]
    for each in facts:
        for number in each["rounds"]:
            number.pop("train", None)  # names its folder
            number["select"].pop("file")
            number["collect"].pop("model")
    assert facts[0]["rounds"] == facts[1]["rounds"], facts
    print(json.dumps({"kills": kills, "rounds": len(facts[0]["rounds"])}))


if __name__ == "__main__":
    main()
