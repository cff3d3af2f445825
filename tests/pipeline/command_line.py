"""Runs the command line in a process of its own, as a user would."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOVIELENS = "from pipeline.cli import main; main()"


def run_code(
    code: str, *arguments: str, settings: tuple[str, ...] | list[str] = (), timeout: int = 500
) -> subprocess.CompletedProcess[str]:
    """Runs Python code in the root of the project, its output wide enough for every table.

    Args:
      code: the code; MOVIELENS for the command line itself.
      arguments: the command and its options.
      settings: one `--set` each.
      timeout: in seconds.
    """
    options = [option for setting in settings for option in ("--set", setting)]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments, *options],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
