"""Model card (README.md) of a trained model: data, scores, licences and how to rebuild it.

Built from files of the run's output folder, so that the end of a run and `agenttuning merge` write
the same card.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from agenttuning_plugin.reports.card_scores import score_lines, score_results
from agenttuning_plugin.reports.card_sources import data_lines, hub_id, licence_lines
from agenttuning_plugin.reports.model_record import read_model_record
from dataset_builders.errors import AgentTuningError
from dataset_builders.manifest.store import MANIFEST_FILE
from dataset_builders.storage import replace_text
from evaluators.evaluator import RECORDS_FILE
from evaluators.results.evaluations import read_evaluations

_log = logging.getLogger(__name__)

CARD_FILE = "README.md"

_REPORT = "agenttuning_report.json"
_ADAPTER = "adapter_config.json"


def write_model_card(
    run: Path, target: Path | None = None, merge: Mapping[str, Any] | None = None
) -> Path:
    """Write the model card of a run, in place of one that a trainer wrote.

    Args:
        run: Output folder of the run.
        target: Folder to write to; the run's by default.
        merge: "summary" and "command" of a merge; none for the run's own folder.

    Returns:
        The file.

    Raises:
        DataError: A file of the run is damaged.
    """
    place = (target or run) / CARD_FILE
    replace_text(place, model_card(run, (target or run).resolve().name, merge))
    return place


def write_run_card(run: Path) -> None:
    """Write the card of a run that ends; a fault is logged, so that the model is still saved."""
    try:
        write_model_card(run)
    except (AgentTuningError, OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s: no model card: %s", run, error)


def model_card(run: Path, name: str, merge: Mapping[str, Any] | None = None) -> str:
    """Return the card's text: front matter that huggingface_hub can read, then Markdown.

    Args:
        run: Output folder of the run.
        name: Name of the model.
        merge: See `write_model_card`.

    Raises:
        DataError: A file of the run is damaged.
    """
    record = read_model_record(run)
    manifest, report = _json(run / MANIFEST_FILE), _json(run / _REPORT)
    evaluations = read_evaluations(run) if (run / RECORDS_FILE).is_file() else []
    adapter = _json(run / _ADAPTER)
    base = str(record.get("base", {}).get("name") or adapter.get("base_model_name_or_path", ""))
    is_adapter = merge is None and (run / _ADAPTER).is_file()
    lines = [f"# {name}", "", _summary(base, record, is_adapter, merge), "", "## Training data", ""]
    lines += data_lines(manifest, report)
    lines += ["", "## Evaluation", "", *score_lines(evaluations)]
    lines += ["", "## Licences", "", *licence_lines(base, manifest)]
    lines += ["", "## Rebuild", "", *_rebuild(record, manifest, merge)]
    matter = _front_matter(name, base, is_adapter, manifest, evaluations)
    return f"---\n{matter}\n---\n\n" + "\n".join(lines) + "\n"


def _front_matter(
    name: str, base: str, is_adapter: bool, manifest: Mapping[str, Any], evaluations: list[Any]
) -> str:
    from huggingface_hub import ModelCardData

    where = manifest.get("where", {})
    paths = [path for side in ("agent", "general") for path in where.get(side, ())]
    datasets = list(dict.fromkeys(path for path in paths if hub_id(path)))
    data = ModelCardData(
        base_model=base if hub_id(base) else None,
        datasets=datasets or None,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["agenttuning", "agent", *(["lora"] if is_adapter else [])],
        model_name=name,
        eval_results=score_results(evaluations) or None,
    )
    return str(data.to_yaml())


def _summary(
    base: str, record: Mapping[str, Any], is_adapter: bool, merge: Mapping[str, Any] | None
) -> str:
    what = "Adapter" if is_adapter else "Model"
    lines = [f"{what} made from `{base or 'a base model that is not recorded'}` by AgentTuning"]
    lines.append("(arXiv 2310.12823): general chat data mixed with agent trajectories.")
    quantization = record.get("quantization") or {}
    if quantization.get("load_in_4bit") or quantization.get("load_in_8bit"):
        bits = "4" if quantization.get("load_in_4bit") else "8"
        lines.append(f"During training the base was quantised to {bits} bits (bitsandbytes).")
    if merge is not None:
        lines.append(str(merge["summary"]))
    elif is_adapter:
        lines.append("`agenttuning merge` on this folder makes a model that needs no adapter.")
    if tokens := record.get("end_of_turn"):
        lines.append(f"Generation ends at eos and at {', '.join(f'`{each}`' for each in tokens)}.")
    return "\n".join(lines)


def _rebuild(
    record: Mapping[str, Any],
    manifest: Mapping[str, Any],
    merge: Mapping[str, Any] | None,
) -> list[str]:
    recipe = record.get("recipe", {})
    path = recipe.get("path") or "RECIPE"
    trains = "axolotl train" if recipe.get("trainer") == "axolotl" else "python"
    commands = [f"{trains} {path}"] if recipe else []
    commands += [str(merge["command"])] if merge else []
    lines = ["```bash", *commands, "```"] if commands else ["The commands are not recorded."]
    versions = {**manifest.get("versions", {}), **record.get("versions", {})}
    known = [f"{package} {number}" for package, number in versions.items() if number]
    lines += ["", f"Versions: {', '.join(known) or 'not recorded'}.", ""]
    if recipe:
        text = recipe.get("text") or yaml.safe_dump(
            {"agenttuning": recipe["section"]}, sort_keys=False, allow_unicode=True
        )
        what = "Recipe" if recipe.get("text") else "Settings of the plugin"
        fence = "````"  # A recipe's comments may contain a shorter fence.
        lines += [f"<details><summary>{what}</summary>", "", f"{fence}yaml", text.rstrip(), fence]
        lines += ["", "</details>"]
    return lines


def _json(path: Path) -> dict[str, Any]:
    """Return a file's content; empty if it is missing or damaged: `explain` reports that."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
