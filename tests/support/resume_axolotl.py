"""Trains with Axolotl for test_resume.py, and is the plugin that writes down what it trains on.

python resume_axolotl.py RUNS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from resume_recorder import Recorder, fork_each


class RecorderPlugin(BasePlugin):
    """Puts a recorder before the trainer's step."""

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> None:
        """Leave the data to the other plugin; a rank's number means a GPU to Axolotl."""
        if cfg.world_size > 1:
            cfg.device_map = {"": "cpu"}

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Called by Axolotl with the trainer."""
        Recorder(trainer)


def train(recipe: str) -> None:
    """Do what `axolotl train` does."""
    from axolotl.cli.train import do_cli

    do_cli(recipe)


if __name__ == "__main__":
    # What a run would import, so that it is imported once.
    import axolotl.cli.config
    import axolotl.core.builders
    import axolotl.loaders
    import axolotl.train  # noqa: F401

    fork_each(json.loads(Path(sys.argv[1]).read_text("utf-8")), train)
