"""Entry point of `python -m agenttuning_plugin`, same as `agenttuning`."""

from __future__ import annotations

from agenttuning_plugin.cli.main import main

if __name__ == "__main__":
    main()
