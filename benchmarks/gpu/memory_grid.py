"""Peak memory of QLoRA over ranks, batches and checkpointing, beside what is predicted."""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.gpu import models, rows, training
from benchmarks.gpu.prediction import predict
from benchmarks.gpu.training import Case, Save


def measure_memory(case: Case, folder: Path, device: str, save: Save) -> None:
    """Train each combination for two steps, so that optimizer states exist, and save its row.

    A combination that does not fit is a row with the reason; the next one still runs.
    """
    found: list[dict[str, Any]] = []
    axes = product(case["ranks"], case["checkpointings"], case["batches"])
    for rank, checkpointing, batch in axes:
        one = case | {"rank": rank, "checkpointing": checkpointing, "batch": batch}
        if found and time.time() > case["deadline"]:
            row = {"reason": "no time was left"}
        else:
            row = _row(one, folder, device)
        kept = ("shape", "method", "length", "rank", "checkpointing", "batch", "attention")
        found.append({name: one[name] for name in kept} | row)
        save({"rows": found})


def _row(case: Case, folder: Path, device: str) -> dict[str, Any]:
    args = training.make_arguments(case, folder, device)
    predicted = predict(case, args, device)
    model = None
    try:
        run = rows.packed_run(folder, args, case["length"])
        models.reset_peak()
        model = training.build(case, device)
        once = training.train_once("plugin", model, run, args, None)
        return {"peak_bytes": once["peak_bytes"], **predicted}
    except Exception as error:  # Such as torch.OutOfMemoryError; the next row is still measured.
        return {**predicted, "reason": models.reason(error)}
    finally:
        del model
        models.release()
