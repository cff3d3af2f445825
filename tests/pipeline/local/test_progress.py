"""While a run goes on, each node is shown with its number, its outcome and its duration."""

import io
import logging

import pytest
from rich.console import Console

from pipeline.local.progress import RunProgress, duration
from pipeline.nodes import NodeRun, State

_logger = logging.getLogger("trainers.anything")


@pytest.fixture(autouse=True)
def _set_log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainers")


def run_output(terminal: bool) -> str:
    file = io.StringIO()
    with RunProgress(Console(file=file, force_terminal=terminal, width=100, color_system=None), total=24) as progress:
        runs: list[tuple[str, State, float]] = [
            ("Transform", "complete", 41.2),
            ("Trainer.dcn", "complete", 185.0),
            ("Resolver.dcn", "resolved", 0.1),
            ("Pusher.dcn", "cached", 0.2),
            ("Evaluator.dcn", "failed", 3.0),
        ]
        for name, state, seconds in runs:
            progress.started(name)
            if name.startswith("Trainer"):
                _logger.info("dcn epoch 1/2: loss 1.0 [half]")
                _logger.info("dcn epoch 2/2: loss 0.5 [half]")
            progress.finished(NodeRun(name, state, seconds))
    _logger.info("after the run")
    return file.getvalue()


def test_without_a_terminal_the_progress_is_plain_lines() -> None:
    assert run_output(terminal=False).splitlines() == [
        "[ 1/24] Transform … 41 s",
        "[ 2/24] Trainer.dcn",
        "        dcn epoch 1/2: loss 1.0 [half]",
        "        dcn epoch 2/2: loss 0.5 [half]",
        "[ 2/24] Trainer.dcn … 3 min 5 s",
        "[ 3/24] Resolver.dcn … resolved",
        "[ 4/24] Pusher.dcn … cached",
        "[ 5/24] Evaluator.dcn … failed after 3 s",
    ]


def test_a_terminal_shows_the_same_outcomes_beside_a_clock() -> None:
    text = run_output(terminal=True)
    for outcome in ("Transform … 41 s", "Pusher.dcn … cached", "epoch 2/2: loss 0.5 [half]", "0:00:00"):
        assert outcome in text
    assert "after the run" not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (0.96, "1 s"), (41.4, "41 s"), (59.7, "1 min 0 s"), (3725, "62 min 5 s")]
)
def test_durations_are_in_seconds_or_in_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text
