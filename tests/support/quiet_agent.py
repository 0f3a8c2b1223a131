"""In place of the agent that Ray starts on each node for its dashboard.

The tests run no dashboard. Ray's own agent imports for seconds, and a node that waits 15 s for
it gives up, as happens on a busy machine. This one says at once that it serves nothing, as
Ray's own does where the dashboard is not installed, and ends with its node.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    given = dict(
        word[2:].split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word
    )
    for name in ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"):
        Path(given["session-dir"], f"{name}_{given['node-id']}").write_text("-1")
    sys.stdin.read()
