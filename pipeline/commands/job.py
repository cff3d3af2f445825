"""Code shared by the commands that run a pipeline: options, reading data, the output folder, reporting failures."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.local.errors import NodeFailed, RunError, root_cause
from pipeline.metadata_server import ServerSettingError
from pipeline.paths import check_no_pattern, data_path, local_path

if TYPE_CHECKING:
    from components.data.raw_files import MovieLens
    from components.ingestion.spans import Window
    from pipeline.config import Config
    from pipeline.local.logs import Consoles
    from pipeline.local.output import OutputFolder

# Free disk space that a run needs: a fixed amount, and a multiple of the size of the raw data.
MINIMUM_FREE_MEGABYTES = 200
_FREE_BYTES_PER_DATA_BYTE = 20

_logger = logging.getLogger(__name__)

ConfigOption = Annotated[
    str, typer.Option(help="A preset (sample, ml1m) or a YAML file.", metavar="NAME|FILE.yaml", show_default=True)
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with ratings.dat, users.dat, movies.dat and, optionally, credits.csv; it may be a URI, such as "
        "s3://bucket/ml-1m. Without this option, the run generates synthetic data.",
        metavar="DIR|URI",
        parser=data_path,
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder for everything that is written. A run with the same folder reuses the results that are there.",
        metavar="DIR",
        parser=local_path,
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


class NoRunError(RunError):
    """The folder is not one that a run wrote to."""

    exit_code = 2


@dataclass(frozen=True)
class Job:
    """The configuration, the data and the output folder of one command.

    Attributes:
      config: the configuration to run.
      data: absolute path of the data folder.
      movielens: the data of that folder; if it holds several spans, those of the latest span.
      output: the output folder.
    """

    config: "Config"
    data: Path
    movielens: "MovieLens"
    output: "OutputFolder"


@contextlib.contextmanager
def prepared_job(config: str, overrides: list[str] | None, data: Path | None, output: Path | None) -> Iterator[Job]:
    """Checks the configuration and the data, and locks the output folder for this process.

    Args:
      config: a preset or a YAML file.
      overrides: `KEY=VALUE` settings that replace those of the configuration.
      data: folder of the data; None to generate synthetic data.
      output: the output folder; None for `output/NAME`, where NAME is the name of the configuration.

    Yields:
      The job to run; the lock ends with the context.

    Raises:
      ConfigError: the configuration is invalid.
      PathError: the output folder's path reads as a pattern.
      DataError: the data are invalid.
      RunError: the output folder cannot be used.
    """
    from pipeline.config import load_config
    from pipeline.local.output import OutputFolder

    settings = load_config(config, overrides)
    folder = OutputFolder((output or Path("output") / settings.name).absolute())
    check_no_pattern("--output", str(folder.root))
    movielens = _read_data(data, settings) if data else None
    read = _FREE_BYTES_PER_DATA_BYTE * _dat_bytes(data, settings) // 2**20 if data else 0
    folder.prepare(MINIMUM_FREE_MEGABYTES + read)
    with folder.locked():
        folder.keep_metadata(settings.metadata.backend)
        folder.keep_storage(settings.storage)
        folder.check_metadata()
        if data is None or movielens is None:
            data = _sample_folder(settings, folder.data)
            movielens = _read_data(data, settings)
        # Without `..` and links: the path is part of what TFX knows cached results by.
        yield Job(settings, data.resolve(), movielens, folder)


@dataclass(frozen=True)
class PlannedJob:
    """What a command would run on, without anything being written for it.

    Attributes:
      config: the configuration.
      data: absolute path of the data folder.
      output: the output folder, which need not exist.
      spans: which spans would be read, for a person; "" without spans.
    """

    config: "Config"
    data: Path
    output: "OutputFolder"
    spans: str


@contextlib.contextmanager
def planned_job(
    config: str, overrides: list[str] | None, data: Path | None, output: Path | None
) -> Iterator[PlannedJob]:
    """Checks the configuration and the data, as `prepared_job`, whose arguments and errors these are."""
    from pipeline.config import load_config
    from pipeline.local.output import OutputFolder

    settings = load_config(config, overrides)
    folder = OutputFolder((output or Path("output") / settings.name).absolute())
    check_no_pattern("--output", str(folder.root))
    folder.keep_metadata(settings.metadata.backend, write=False)
    folder.keep_storage(settings.storage, write=False)
    folder.check_metadata()
    with tempfile.TemporaryDirectory(prefix="movielens-data-") as new:
        if data is None:
            data = _sample_path(settings, folder)
            if not data.exists():
                data = _sample_folder(settings, Path(new))
        _read_data(data, settings)
        yield PlannedJob(settings, data.resolve(), folder, describe_spans(data, settings))


def output_of_runs(output: Path) -> "OutputFolder":
    """The output folder of earlier runs, for commands that change what these have written.

    Raises:
      NoRunError: no run has written to it.
    """
    from pipeline.local.output import OutputFolder

    folder = OutputFolder(output.absolute())
    if not folder.store.exists:
        raise NoRunError(
            f"--output should be a folder that `movielens run` wrote to; {folder.root} has no metadata, which would be "
            f"in {folder.store}."
        )
    return folder


def describe_spans(data: Path, config: "Config") -> str:
    """Which spans a run reads, in a sentence; "" without spans.

    Raises:
      DataError: a span of the window is missing.
    """
    if config.data.spans is None:
        return ""
    window = window_of(data, config)
    there = [number for number in window.folders if number >= window.first]
    text = f"Trained on {_numbers('span', there)}, measured on span {window.newest}"
    earlier = [number for number in window.folders if number < window.first]
    if earlier:
        text += f"; what was rated in {_numbers('span', earlier)} is known"
    if window.dropped:
        text += f"; what was rated in {_numbers('span', list(window.dropped))} is no longer read"
    if window.lacking:
        text += f"; {_numbers('span', list(window.lacking))} missing"
    return f"{text}."


def _numbers(word: str, numbers: list[int]) -> str:
    return f"{word}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _read_data(folder: Path, config: "Config") -> "MovieLens":
    """Reads the data of a run; with `data.spans`, those of the newest span only.

    Raises:
      DataError: a file cannot be read, or a span of the window is missing.
    """
    from components.data.raw_files import read_movielens
    from components.ingestion.spans import read_span

    if config.data.spans is None:
        return read_movielens(folder, config.data.tolerance)
    window = window_of(folder, config)
    return read_span(folder, window.folders[window.newest], config.data.tolerance)


def window_of(folder: Path, config: "Config") -> "Window":
    """The spans that a run reads, as `find_window`, whose errors these are."""
    from components.ingestion.spans import find_window

    data = config.data
    return find_window(folder, data.spans, data.versions, data.missing_spans == "skip", data.keep_spans)


def _dat_bytes(folder: Path, config: "Config") -> int:
    """Returns the total size of the *.dat files that are read; links that lead nowhere do not count."""
    folders = window_of(folder, config).folders.values()
    return sum(file.stat().st_size for each in folders for file in each.glob("*.dat") if file.is_file())


def _sample_path(config: "Config", output: "OutputFolder") -> Path:
    return output.data / _sample_name(config)


def _sample_name(config: "Config") -> str:
    sample = config.data.sample
    return f"users{sample.users}-movies{sample.movies}-ratings{sample.ratings}-seed{sample.seed}"


def _sample_folder(config: "Config", parent: Path) -> Path:
    """Writes a configuration's synthetic data into a folder below the given one, and returns that folder.

    They are generated anew in each run, in a fifth of a second for 40,000 ratings, because a folder with this name may
    come from an earlier version of the generator, or may have been changed since. Files that hold the same stay.
    """
    from components.data.sample import generate_sample

    sample, folder = config.data.sample, parent / _sample_name(config)
    try:
        generate_sample(folder, sample.users, sample.movies, sample.ratings, sample.seed, force=True)
    except FileExistsError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{folder}: the sample could not be written; {error.strerror}.") from error
    return folder


@contextlib.contextmanager
def messages_only(
    output: "OutputFolder", interrupted: str, failed: str = "", alone: bool = True
) -> Iterator["Consoles"]:
    """Sends the output of libraries to a log file, and turns a failure into a single message.

    Args:
      output: the output folder; the log file goes there.
      interrupted: text to print after "Interrupted; ", which says how the next run continues.
      failed: text to append to the message if a component failed, which says what that means for the results.
      alone: whether this process has the folder for itself; a failure then removes half-written files from it.

    Yields:
      Consoles on the standard output and error as they were before.

    Raises:
      RunError: something failed; the message names the component (if one failed), the root cause and the log file.
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
            if alone:
                recover_after_failure(output)
            raise _as_run_error(error, failed, consoles.log) from error


def announce(job: Job, consoles: "Consoles") -> None:
    """Prints the configuration, the data and the output folder before the slow import of TensorFlow and TFX."""
    consoles.err.print(
        f"{job.config.name}: {job.data} to {job.output.root}; loading TensorFlow and TFX …",
        markup=False,
        soft_wrap=True,
    )
    if spans := describe_spans(job.data, job.config):
        consoles.err.print(spans, markup=False, soft_wrap=True)


def recover_first(output: "OutputFolder", consoles: "Consoles") -> None:
    """Makes the folder ready for a run: finds moved artifacts again, and removes what an interrupted run left.

    Tells the user if there were any.
    """
    from pipeline.local.recovery import recover
    from pipeline.local.relocation import follow_move

    output.store.begin()
    if output.store.exists:
        for old in follow_move(output.store.open(), output):
            consoles.err.print(describe_move(old), markup=False, soft_wrap=True)
    recovered = recover(output)
    if recovered:
        consoles.err.print(
            f"An earlier run was cut off; going on from what it finished ({recovered} executions to repeat)."
        )


def describe_move(old: Path) -> str:
    """What it means for the next run that the output folder was moved here from another place."""
    return f"{old} was moved here: its models are known, but what was computed from its data is computed again."


def recover_after_failure(output: "OutputFolder") -> None:
    """Removes half-written outputs; if that fails too, it only logs the error, so that the first one is reported."""
    try:
        from pipeline.local.recovery import recover

        recover(output)
    except Exception:
        _logger.exception("Cleaning up failed; the next run does it.")


def _as_run_error(error: Exception, failed: str, log: Path) -> RunError:
    """Returns the error with the message for the user: what failed, the consequence `failed` and the log file."""
    if isinstance(error, RunError):
        message, code = str(error), error.exit_code
    elif isinstance(error, ServerSettingError):
        message, code = str(error), 2
    else:
        kind, text = root_cause(error)
        message, code = f"{kind}: {text}", 1
    if failed and isinstance(error, NodeFailed):
        message += f"\n{failed}"
    run_error = RunError(f"{message}\nLog: {log}")
    run_error.exit_code = code
    return run_error
