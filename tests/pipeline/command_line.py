"""Runs the command line in a new process, as a user does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOVIELENS = "from pipeline.cli import main; main()"
# The same with the stand-in pipeline as its graph.
STANDIN_MOVIELENS = "from tests.pipeline.local import standin_movielens"


def run_code(
    code: str, *arguments: str, settings: tuple[str, ...] | list[str] = (), timeout: int = 500
) -> subprocess.CompletedProcess[str]:
    """Runs Python code in the project's root folder, with output lines wide enough for every table.

    Args:
      code: the Python code; MOVIELENS runs the command line itself.
      arguments: the command and its options.
      settings: settings to pass, each with an option `--set` of its own.
      timeout: the time limit in seconds.
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
