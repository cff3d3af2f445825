"""The error that a component raised becomes one message that names its root cause, with an exit code."""

import errno
from pathlib import Path

import pytest

from components.data.raw_files import DataError
from components.validation.data_gate import Anomaly, AnomalyError
from pipeline.local.errors import BadInputFound, disk_is_full, node_failure, root_cause

BEAM = """Traceback (most recent call last):
  File "worker.py", line 1, in process
    parse(line)
components.data.raw_files.DataError: ratings.dat:17: rating should be 1 to 5; received '7'.

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "common.py", line 2, in _reraise
    raise new_exn
{last} [while running 'Read/ParDo(Parse)']
"""


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_the_root_cause_is_the_error_that_it_was_raised_from() -> None:
    error = raised(RuntimeError("pipeline failed"), KeyError("vocabulary"))
    assert root_cause(error) == ("KeyError", "'vocabulary'")


def test_an_error_raised_while_handling_another_is_its_own_root_cause() -> None:
    error = ValueError("epochs should be positive")
    error.__context__ = KeyError("a detail")
    assert root_cause(error) == ("ValueError", "epochs should be positive")


@pytest.mark.parametrize("kind", ["RuntimeError: components.data.raw_files.DataError", "components.DataError"])
def test_bad_data_is_recognised_in_the_text_of_beams_traceback(kind: str) -> None:
    text = BEAM.format(last=f"{kind}: ratings.dat:17: rating should be 1 to 5; received '7'.")
    failure = node_failure("MovieLensExampleGen", RuntimeError(text))
    assert "ratings.dat:17: rating should be 1 to 5; received '7'." in str(failure)
    assert "while running" not in str(failure)
    assert "Traceback" not in str(failure)


def test_bad_data_exits_as_bad_input() -> None:
    error = DataError(Path("ratings.dat"), 17, "rating should be 1 to 5; received '7'.")
    failure = node_failure("MovieLensExampleGen", raised(RuntimeError("beam"), error))
    assert isinstance(failure, BadInputFound)
    assert failure.exit_code == 2
    assert str(failure) == f"MovieLensExampleGen failed: {error}"


def test_anomalies_exit_as_bad_input_and_are_all_listed() -> None:
    anomalies = [Anomaly("train", f"feature{row}", "Out-of-range values", "Too large: 99. " * 5) for row in range(40)]
    failure = node_failure("DataGate", AnomalyError(anomalies))
    assert isinstance(failure, BadInputFound)
    for anomaly in anomalies:
        assert str(anomaly) in str(failure).replace("\n", " ")
    assert len(str(failure).splitlines()) == 1 + len(anomalies)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/x"),
        RuntimeError("ResourceExhaustedError: /x; No space left on device"),
        RuntimeError("Cannot publish: database or disk is full"),
    ],
)
def test_a_full_disk_is_found_wherever_it_is_in_the_chain(error: Exception) -> None:
    for outer in (error, raised(RuntimeError("publishing failed"), error)):
        assert disk_is_full(outer)
        assert str(node_failure("Trainer.dcn", outer)) == "Trainer.dcn failed: No space left on device"


def test_other_errors_are_not_a_full_disk() -> None:
    assert not disk_is_full(OSError(errno.EACCES, "Permission denied"))
