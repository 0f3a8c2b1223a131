"""Checks recipes one after the other in one process, and prints a JSON object per recipe.

Used as `python -m tests.support.check_recipes RECIPE...`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.text import Text

from agenttuning_plugin.cli.check import screen
from agenttuning_plugin.preflight.check import launched_processes, recipe_report
from agenttuning_plugin.preflight.script import script_report


def main() -> None:
    """Check the recipes named on the command line."""
    for name in sys.argv[1:]:
        path = Path(name)
        processes = launched_processes(path)
        check = script_report if path.suffix == ".py" else recipe_report
        report = check(path, processes=processes)
        lines = [Text.from_markup(line).plain for line in screen(report)]
        print(json.dumps({**report.as_json(), "screen": lines}), flush=True)
    from axolotl.telemetry.manager import TelemetryManager

    print(json.dumps({"telemetry": TelemetryManager.get_instance().enabled}))


if __name__ == "__main__":
    main()
