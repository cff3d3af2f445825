"""`movielens run`: from raw files to pushed models and a first answer."""

import logging
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from pipeline.errors import NodeFailed, RunError, root_cause

if TYPE_CHECKING:
    from components.data.raw_files import MovieLens
    from pipeline.config import Config
    from pipeline.logs import Consoles
    from pipeline.output import OutputFolder

NOT_BLESSED = 3

_FREE_MEGABYTES = 200
_FREE_PER_DATA_BYTE = 20
_ANSWER_TITLES = 10
_ANSWER_SECONDS = 60.0

_logger = logging.getLogger(__name__)


class Runner(StrEnum):
    """TFX's runners on one machine."""

    LOCAL = "local"
    BEAM = "beam"


def run(
    config: Annotated[
        str, typer.Option(help="A preset (sample, ml1m) or a YAML file.", metavar="NAME|FILE.yaml", show_default=True)
    ] = "sample",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with ratings.dat, users.dat, movies.dat and, optionally, credits.csv. "
            "Without it, synthetic data are generated.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for everything that the run writes; a run with the same folder goes on from what is there.",
            metavar="DIR",
            show_default="output/<name of the configuration>",
        ),
    ] = None,
    runner: Annotated[Runner, typer.Option(help="TFX's LocalDagRunner or BeamDagRunner.")] = Runner.LOCAL,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Replace one setting of the configuration, for example models.ranking.epochs=3. Can be repeated.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[bool, typer.Option(help="Reuse the results of components whose inputs did not change.")] = True,
) -> None:
    """Train, measure and push the models, and ask the recommender for a first answer.

    Writes to the output folder: summary.json (what the run came to), serving/ (pushed models), logs/, pipeline/
    (artifacts), metadata.sqlite and, for generated data, data/.

    Exits with 0 if all models were pushed, 1 if something failed, 2 if the configuration or the data are not as they
    should be, and 3 if the run finished but a model did not pass its gate and was not pushed.
    """
    from pipeline.config import load_config
    from pipeline.output import OutputFolder

    start = time.monotonic()
    settings = load_config(config, overrides)
    movielens = _read(data, settings) if data else None
    folder = OutputFolder((output or Path("output") / settings.name).absolute())
    folder.prepare(_FREE_MEGABYTES + (_FREE_PER_DATA_BYTE * _size(data) // 2**20 if data else 0))
    with folder.locked():
        folder.check_metadata()
        if data is None or movielens is None:
            data = _sample(settings, folder)
            movielens = _read(data, settings)
        summary = _run_quietly(settings, data.absolute(), movielens, folder, runner, cache, start)
    if _tell_unmet(summary):
        raise typer.Exit(NOT_BLESSED)


def _read(folder: Path, config: "Config") -> "MovieLens":
    """The data of a run; of several spans, the latest."""
    from components.data.raw_files import read_movielens
    from components.spans import read_span, span_folders

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


def _run_quietly(
    config: "Config",
    data: Path,
    movielens: "MovieLens",
    output: "OutputFolder",
    runner: Runner,
    cache: bool,
    start: float,
) -> dict[str, Any]:
    """Runs the pipeline with libraries quiet, and shows what it came to.

    Raises:
      RunError: something failed; the message names component, root cause and log.
    """
    from pipeline.logs import quiet_libraries

    with quiet_libraries(output.logs) as consoles:
        try:
            summary = _run(config, data, output, runner, cache, start, consoles)
            if summary["recommender"]["pushed"]:
                _answer(config, output, movielens, consoles.out)
            consoles.out.print(f"Summary: {output.summary}", f"Log: {consoles.log}", sep="\n", soft_wrap=True)
        except KeyboardInterrupt:
            consoles.err.print("Interrupted; the same command goes on from the components that finished.")
            raise
        except Exception as error:
            _logger.exception("The run failed.")
            _recover_after_failure(output)
            raise _told(error, consoles.log) from error
    return summary


def _run(
    config: "Config",
    data: Path,
    output: "OutputFolder",
    runner: Runner,
    cache: bool,
    start: float,
    consoles: "Consoles",
) -> dict[str, Any]:
    from pipeline.memory import PeakMemory
    from pipeline.progress import RunProgress, duration

    consoles.err.print(
        f"{config.name}: {data} to {output.root}; loading TensorFlow and TFX …", markup=False, soft_wrap=True
    )
    with PeakMemory() as memory:
        import ml_metadata as mlmd

        from pipeline.graph import create_pipeline
        from pipeline.recovery import metadata_config, recover
        from pipeline.report import models_table, read_outputs, summarise, write_summary
        from pipeline.runner import run_pipeline

        recovered = recover(output)
        if recovered:
            consoles.err.print(f"An earlier run was cut off; going on from what it finished ({recovered} to do again).")
        connection = metadata_config(output.metadata)
        pipeline = create_pipeline(
            config=config,
            data_dir=str(data),
            pipeline_root=str(output.artifacts),
            serving_dir=str(output.serving),
            metadata_connection_config=connection,
            enable_cache=cache,
        )
        with RunProgress(consoles.err, total=len(pipeline.components)) as progress:
            nodes = run_pipeline(pipeline, runner.value, progress)
        summary = summarise(
            config,
            nodes,
            read_outputs(mlmd.MetadataStore(connection), nodes),
            seconds=time.monotonic() - start,
            peak_rss_mb=memory.megabytes,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            log=consoles.log,
        )
    write_summary(summary, output.summary)
    consoles.out.print(models_table(summary))
    consoles.out.print(f"{duration(summary['seconds'])}, at most {summary['peak_rss_mb']} MB of memory")
    return summary


def _recover_after_failure(output: "OutputFolder") -> None:
    """Leaves nothing half-made behind; a failure of the clean-up itself only goes into the log."""
    try:
        from pipeline.recovery import recover

        recover(output)
    except Exception:
        _logger.exception("Cleaning up failed; the next run does it.")


def _told(error: Exception, log: Path) -> RunError:
    """The one message for the user."""
    if isinstance(error, RunError):
        message, code = str(error), error.exit_code
    else:
        kind, text = root_cause(error)
        message, code = f"{kind}: {text}", 1
    if isinstance(error, NodeFailed):
        message += "\nNothing was pushed by it or after it."
    told = RunError(f"{message}\nLog: {log}")
    told.exit_code = code
    return told


def _answer(config: "Config", output: "OutputFolder", movielens: "MovieLens", console: Console) -> None:
    """Serves the pushed models, and asks over gRPC for titles for the user with the lowest id."""
    from pipeline.commands.recommend import recommendations_table
    from serving.client import RecommenderClient
    from serving.server import running_server

    user = int(movielens.users["user_id"].min())
    k = min(_ANSWER_TITLES, config.recommender.candidates, len(movielens.movies))
    with (
        running_server(output.serving) as (port, _),
        RecommenderClient(port=port, deadline_seconds=_ANSWER_SECONDS) as client,
    ):
        movies = client.recommend(user, k=k)
    table = recommendations_table(movies)
    table.title, table.title_justify = f"For user {user}, from the model server", "left"
    console.print(table)


def _tell_unmet(summary: dict[str, Any]) -> bool:
    """Says on standard error which models were not pushed, and why; whether there are any."""
    from pipeline.report import unmet

    console = Console(stderr=True)
    reasons = unmet(summary)
    for name, reason in reasons.items():
        message = f"[red]{name} was not blessed, so it was not pushed:[/red] {escape(reason)}."
        console.print(message, soft_wrap=True, highlight=False)
    return bool(reasons)
