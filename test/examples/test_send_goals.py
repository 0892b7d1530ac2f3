"""The example that sends goals brings the hand to each of them, in a real graph."""

import os
import subprocess
import sys
from pathlib import Path

from spiking_controller.commands.up import command_line
from spiking_controller.nodes.clients.graph import Graph

EXAMPLE = Path(__file__).parents[2] / "examples" / "send_goals.py"


def test_the_hand_reaches_both_goals(tmp_path: Path) -> None:
    graph = Graph(command_line(["--lock-step", "true"]), tmp_path / "graph.log")
    try:
        result = subprocess.run(
            [sys.executable, str(EXAMPLE)],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    finally:
        graph.stop()
    assert result.returncode == 0, result.stderr + (tmp_path / "graph.log").read_text()
    assert result.stdout.splitlines() == ["reached (0.45, 0.2, 0.5)", "reached (0.45, -0.2, 0.4)"]
