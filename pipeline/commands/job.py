"""What the commands that run a pipeline share: options, data, the output folder, and how a failure is shown."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.local.errors import NodeFailed, RunError, root_cause

if TYPE_CHECKING:
    from components.data.raw_files import MovieLens
    from pipeline.config import Config
    from pipeline.local.logs import Consoles
    from pipeline.local.output import OutputFolder

_FREE_MEGABYTES = 200
_FREE_PER_DATA_BYTE = 20

_logger = logging.getLogger(__name__)

ConfigOption = Annotated[
    str, typer.Option(help="A preset (sample, ml1m) or a YAML file.", metavar="NAME|FILE.yaml", show_default=True)
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with ratings.dat, users.dat, movies.dat and, optionally, credits.csv. "
        "Without it, synthetic data are generated.",
        metavar="DIR",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder for everything that is written; with the same folder again, what is there is gone on from.",
        metavar="DIR",
        show_default="output/<name of the configuration>",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Replace one setting of the configuration, for example models.ranking.epochs=3. Can be repeated.",
        metavar="KEY=VALUE",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Job:
    """What to run, on what, and where to write.

    Attributes:
      config: what to run.
      data: folder of the data.
      movielens: what it holds; of several spans, the latest.
      output: the folder for what is written.
    """

    config: "Config"
    data: Path
    movielens: "MovieLens"
    output: "OutputFolder"


@contextlib.contextmanager
def prepared_job(config: str, overrides: list[str] | None, data: Path | None, output: Path | None) -> Iterator[Job]:
    """Checks configuration and data, and holds the output folder for this process.

    Args:
      config: a preset or a YAML file.
      overrides: settings that replace some of it.
      data: folder of the data; None to generate them.
      output: the output folder; None for the one that is named after the configuration.

    Raises:
      ConfigError: the configuration is not as it should be.
      DataError: the data are not.
      RunError: the output folder cannot be used.
    """
    from pipeline.config import load_config
    from pipeline.local.output import OutputFolder

    settings = load_config(config, overrides)
    movielens = _read(data, settings) if data else None
    folder = OutputFolder((output or Path("output") / settings.name).absolute())
    folder.prepare(_FREE_MEGABYTES + (_FREE_PER_DATA_BYTE * _size(data) // 2**20 if data else 0))
    with folder.locked():
        folder.check_metadata()
        if data is None or movielens is None:
            data = _sample(settings, folder)
            movielens = _read(data, settings)
        yield Job(settings, data.absolute(), movielens, folder)


def _read(folder: Path, config: "Config") -> "MovieLens":
    """The data of a run; of several spans, the latest."""
    from components.data.raw_files import read_movielens
    from components.ingestion.spans import read_span, span_folders

    if config.data.spans is None:
        return read_movielens(folder, config.data.tolerance)
    *_, latest = span_folders(folder, config.data.versions).values()
    return read_span(folder, latest, config.data.tolerance)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.dat"))


def _sample(config: "Config", output: "OutputFolder") -> Path:
    """The synthetic data for a configuration, made when they are not there yet."""
    from components.data.sample import generate_sample
    from pipeline.config import ConfigError

    sample = config.data.sample
    folder = output.data / f"users{sample.users}-movies{sample.movies}-ratings{sample.ratings}-seed{sample.seed}"
    if not folder.exists():
        try:
            generate_sample(folder, sample.users, sample.movies, sample.ratings, sample.seed)
        except ValueError as error:
            raise ConfigError(f"data.sample: {error}") from error
        except OSError as error:
            raise RunError(f"{folder}: the sample could not be written; {error.strerror}.") from error
    return folder


@contextlib.contextmanager
def messages_only(output: "OutputFolder", interrupted: str, failed: str = "") -> Iterator["Consoles"]:
    """Keeps libraries quiet, and tells failures in one message.

    Args:
      output: where to log, and what to clean up after a failure.
      interrupted: what an interrupt means for the next run.
      failed: what the failure of a component means.

    Yields:
      The user's own standard output and error.

    Raises:
      RunError: something failed; the message names component, root cause and log.
    """
    from pipeline.local.logs import quiet_libraries

    with quiet_libraries(output.logs) as consoles:
        try:
            yield consoles
        except KeyboardInterrupt:
            consoles.err.print(f"Interrupted; {interrupted}")
            raise
        except Exception as error:
            _logger.exception("The run failed.")
            _recover_after_failure(output)
            raise _as_run_error(error, failed, consoles.log) from error


def announce(job: Job, consoles: "Consoles") -> None:
    """Says what is run, on what, and where it writes, before what takes a while to load."""
    consoles.err.print(
        f"{job.config.name}: {job.data} to {job.output.root}; loading TensorFlow and TFX …",
        markup=False,
        soft_wrap=True,
    )


def recover_first(output: "OutputFolder", consoles: "Consoles") -> None:
    """Clears away what a run that was cut off left half-made."""
    from pipeline.local.recovery import recover

    recovered = recover(output)
    if recovered:
        consoles.err.print(f"An earlier run was cut off; going on from what it finished ({recovered} to do again).")


def _recover_after_failure(output: "OutputFolder") -> None:
    """Leaves nothing half-made behind; a failure of the clean-up itself only goes into the log."""
    try:
        from pipeline.local.recovery import recover

        recover(output)
    except Exception:
        _logger.exception("Cleaning up failed; the next run does it.")


def _as_run_error(error: Exception, failed: str, log: Path) -> RunError:
    """The one message for the user."""
    if isinstance(error, RunError):
        message, code = str(error), error.exit_code
    else:
        kind, text = root_cause(error)
        message, code = f"{kind}: {text}", 1
    if failed and isinstance(error, NodeFailed):
        message += f"\n{failed}"
    shown = RunError(f"{message}\nLog: {log}")
    shown.exit_code = code
    return shown
