"""`agenttuning build`: a mix written to disk, whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from dataset_builders.errors import ConfigError
from dataset_builders.exposure import describe_mix
from dataset_builders.planning import Plan
from dataset_builders.preparation import Encoding, check_sources, mix, prepare, prepare_messages
from dataset_builders.reading import as_spec


def build_to_disk(
    out: Path,
    *,
    agent: list[str],
    general: list[str],
    eta: float,
    num_examples: int,
    seed: int,
    tokenizer: str | None,
    max_length: int,
    chat_template: str | None,
    end_of_turn: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write a mix as a dataset for `datasets.load_from_disk`, and its report beside it.

    With a tokenizer the rows are ids and labels, without one they are `messages`.

    Returns:
        What `report.json` holds.

    Raises:
        ConfigError: `out` exists, or see `dataset_builders.preparation.prepare`.
        DataError: See there.
        SourceNotFoundError: See there.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already, expected a folder to be made")
    plan = Plan(eta=eta)
    check_sources(agent, general, plan)
    agent_specs = [as_spec(path) for path in agent] if eta > 0 else []
    general_specs = [as_spec(path) for path in general] if eta < 1 else []
    if tokenizer is None:
        prepared = prepare_messages(agent_specs, general_specs, plan=plan)
    else:
        from agenttuning_plugin.models import load_tokenizer

        prepared = prepare(
            agent_specs,
            general_specs,
            plan=plan,
            tokenizer=load_tokenizer(tokenizer, chat_template),
            encoding=Encoding(max_length=max_length, end_of_turn=end_of_turn),
        )
    rows, planned = mix(prepared, plan, seed=seed, num_examples=num_examples)
    facts = describe_mix(planned.order, plan, prepared.agent_index, prepared.general_index)
    report = {**prepared.report, "mix": facts, "notes": list(planned.notes)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        folder = Path(temporary) / "whole"
        rows.save_to_disk(folder)
        text = json.dumps(report, ensure_ascii=False, indent=1)
        (folder / "report.json").write_text(text, encoding="utf-8")
        shutil.move(folder, out)
    return report
