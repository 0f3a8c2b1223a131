"""Share the evaluation at step 0 among runs that start from the same model.

A sweep's arms differ in data and hyperparameters, but begin with one base. An untrained LoRA
adapter adds exactly zero to it, whatever its seed, so all arms have one step 0: the first run
measures an evaluator and stores its records, the others copy them.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from filelock import FileLock

from evaluators.evaluator import EvalResult, EvalTarget, Evaluator
from evaluators.models.fingerprint import start_fingerprint
from evaluators.results.evaluations import transcript_path, write_record

LOG = logging.getLogger(__name__)

_LOCKS = ".locks"
_NOT_COMPUTED = ("_name_or_path", "transformers_version", "use_cache")
"""Keys of a model's config that its answers do not depend on."""


@dataclass(frozen=True, slots=True)
class SharedBase:
    """Records of an evaluator at step 0, in a folder that several runs share.

    Attributes:
        folder: The shared folder; it looks like that of a run which measured only step 0.
        evaluator: Name of the evaluator.
        facts: What the records depend on: model, tokenizer, settings and items.
    """

    folder: Path
    evaluator: str
    facts: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """File of the records; another model or other settings have another one."""
        text = json.dumps(self.facts, sort_keys=True, default=str)
        digest = blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()
        return transcript_path(self.folder, f"{self.evaluator}.{digest}", 0)

    @contextmanager
    def held(self, *, waits: bool) -> Iterator[None]:
        """Let other runs wait, so that two that begin together do not both measure.

        Args:
            waits: False for one of several processes, whose others would time out meanwhile.
        """
        if not waits:
            yield
            return
        place = self.folder / _LOCKS
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / f"{self.path.stem}.lock"):
            yield

    def copy_to(self, journal: Path, heading: Mapping[str, Any]) -> bool:
        """Write a run's journal with the shared records; return whether there were any.

        Args:
            journal: The run's file, which must not exist.
            heading: The run's heading.
        """
        if not self.path.is_file() or journal.exists():
            return False
        _, _, records = self.path.read_text("utf-8", "surrogatepass").partition("\n")
        journal.parent.mkdir(parents=True, exist_ok=True)
        part = journal.with_name(f".{journal.name}.part")
        text = json.dumps(heading, ensure_ascii=False) + "\n" + records
        part.write_text(text, "utf-8", "surrogatepass", newline="\n")
        part.replace(journal)
        return True

    def store(self, journal: Path, result: EvalResult) -> None:
        """Store a run's journal and result; one with errors is left for the next run."""
        if self.path.is_file() or result.num_errors or not result.metrics:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        shutil.copyfile(journal, part)
        with FileLock(self.folder / _LOCKS / "evaluations.lock"):
            write_record(self.folder, 0, result)
        part.replace(self.path)  # Last: the file says that all is there.


def shared_base(
    folder: str | None, settings: str, evaluator: Evaluator, limit: int | None, subject: EvalTarget
) -> SharedBase | None:
    """Return where an evaluator's records at step 0 are shared.

    Args:
        folder: The shared folder; none: not at all.
        settings: Identifies the settings that the evaluator was made from; "": unknown, so its
            records are not shared.
        evaluator: The evaluator.
        limit: Maximum number of items.
        subject: The model before the first step.
    """
    if folder is None or not settings:
        return None
    tokenizer = subject.tokenizer
    facts = {
        "evaluator": evaluator.name,
        "about": evaluator.about(),
        "settings": settings,
        "items": evaluator.items()[:limit],
        "weights": start_fingerprint(subject.model),
        "config": _config(subject.model),
        "precision": _precision(subject),
        "tokenizer": _digest(tokenizer.backend_tokenizer.to_str()),
        "template": tokenizer.chat_template,
        "end_of_turn": [tokenizer.eos_token, *subject.end_of_turn],
    }
    return SharedBase(Path(folder).expanduser(), evaluator.name, facts)


def measure_once(
    shared: SharedBase,
    journal: Path,
    heading: Mapping[str, Any],
    subject: EvalTarget,
    measure: Callable[[], EvalResult],
) -> EvalResult:
    """Measure step 0, unless another run has.

    Args:
        shared: From `shared_base`.
        journal: The run's file of transcripts.
        heading: Its heading.
        subject: The model.
        measure: Measures what the journal lacks.
    """
    first = subject.rank == 0
    with shared.held(waits=subject.world_size == 1):
        if first and _best_effort(lambda: shared.copy_to(journal, heading)):
            LOG.info("%s: step 0 is copied from %s", shared.evaluator, shared.path)
        result = measure()
        if first:
            _best_effort(lambda: shared.store(journal, result))
    return result


def _best_effort(action: Callable[[], Any]) -> Any:
    """Run an optional disk operation; a failure, such as a full disk, is logged only."""
    try:
        return action()
    except (OSError, ValueError) as error:
        LOG.warning("step 0 is not shared: %s", error)
        return None


def _config(model: Any) -> dict[str, Any]:
    """Settings of the architecture: `rope_scaling`, say, changes answers but no weight."""
    found: dict[str, Any] = model.config.to_dict()
    return {name: value for name, value in found.items() if name not in _NOT_COMPUTED}


def _precision(subject: EvalTarget) -> list[str]:
    import torch

    kind = subject.device.type
    with subject.autocast():
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return [kind, str(subject.model.dtype), str(cast)]


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
