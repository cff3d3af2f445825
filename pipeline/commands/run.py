"""`movielens run`: runs the pipeline from raw files to pushed models, and shows a first recommendation."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from components.storage.paths import UriPath, copy_folder, stored_path
from pipeline.commands.job import (
    ConfigOption,
    DataOption,
    Job,
    OutputOption,
    SetOption,
    announce,
    messages_only,
    prepared_job,
    recover_after_failure,
    recover_first,
)
from pipeline.commands.results import end_by, show_results
from trainers.registry import RECOMMENDER

if TYPE_CHECKING:
    from pipeline.local.logs import Consoles

_ANSWER_TITLES = 10
_ANSWER_SECONDS = 60.0


class Runner(StrEnum):
    """How components are launched on this machine."""

    LOCAL = "local"
    BEAM = "beam"


def run(
    config: ConfigOption = "sample",
    data: DataOption = None,
    output: OutputOption = None,
    runner: Annotated[
        Runner, typer.Option(help="local: one component after the other, in this process. beam: TFX's BeamDagRunner.")
    ] = Runner.LOCAL,
    overrides: SetOption = None,
    cache: Annotated[bool, typer.Option(help="Reuse the results of components whose inputs have not changed.")] = True,
) -> None:
    """Train, evaluate and push the models, and ask the recommender for a first answer.

    Writes to the output folder: summary.json (the results of the run), serving/ (pushed models), logs/, pipeline/
    (artifacts), metadata.sqlite and, for generated data, data/.

    Exits with 0 if all models were pushed, 1 if something failed, 2 if the configuration or the data are invalid, and 3
    if the run finished but a model was not pushed: it did not pass its gate, it was withdrawn, or the version that it
    was pushed as was deleted by hand. If nothing but a report failed, such as FeatureImportance, everything else is
    done and pushed before the run exits with 1.
    """
    start = time.monotonic()
    with prepared_job(config, overrides, data, output) as job:
        summary = _run_quietly(job, runner, cache, start)
    end_by(summary)


def _run_quietly(job: Job, runner: Runner, cache: bool, start: float) -> dict[str, Any]:
    """Runs the pipeline with the output of libraries sent to the log, and prints the results."""
    interrupted = "the same command goes on from the components that finished."
    with messages_only(job.output, interrupted, failed="Nothing was pushed by it or after it.") as consoles:
        summary = _run_pipeline(job, runner, cache, start, consoles)
        if summary[RECOMMENDER]["pushed"]:
            _show_recommendations(job, summary[RECOMMENDER]["pushed"], consoles.out)
        consoles.out.print(f"Summary: {job.output.summary}", f"Log: {consoles.log}", sep="\n", soft_wrap=True)
    return summary


def _run_pipeline(job: Job, runner: Runner, cache: bool, start: float, consoles: "Consoles") -> dict[str, Any]:
    """Runs the pipeline, and writes, prints and returns its summary."""
    from pipeline.local.memory import PeakMemory
    from pipeline.local.progress import RunProgress

    announce(job, consoles)
    config, output = job.config, job.output
    with PeakMemory() as memory:
        from pipeline.graph import create_pipeline
        from pipeline.local.report import summary_of_run, write_summary
        from pipeline.local.runner import run_pipeline

        recover_first(output, consoles)
        pipeline = create_pipeline(
            config=config,
            data_dir=str(job.data),
            pipeline_root=str(output.artifacts),
            serving_dir=str(output.serving),
            metadata_connection_config=output.store.connection,
            enable_cache=cache,
        )
        with RunProgress(consoles.err, total=len(pipeline.components)) as progress:
            nodes = run_pipeline(pipeline, runner.value, progress)
        if any(node.state == "failed" for node in nodes):
            recover_after_failure(output)
        summary = summary_of_run(
            output.store.open(),
            config,
            nodes,
            seconds=time.monotonic() - start,
            peak_rss_mb=memory.megabytes,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            log=consoles.log,
        )
    write_summary(summary, output.summary)
    show_results(summary, consoles.out)
    return summary


def _show_recommendations(job: Job, pushed: str, console: Console) -> None:
    """Serves the pushed models, and asks over gRPC for recommendations for the user with the lowest id."""
    from pipeline.commands.recommend import recommendations_table
    from serving.client import RecommenderClient
    from serving.local.server import running_server

    user = int(job.movielens.users["user_id"].min())
    with (
        _servable(job.output.serving, pushed) as models,
        running_server(models) as (port, _),
        RecommenderClient(port=port, deadline_seconds=_ANSWER_SECONDS) as client,
    ):
        movies = client.recommend(user, k=_ANSWER_TITLES)
    table = recommendations_table(movies)
    table.title, table.title_justify = f"For user {user}, from the model server", "left"
    console.print(table)


@contextlib.contextmanager
def _servable(serving: Path, pushed: str) -> Iterator[Path]:
    """A folder that the model server can read: that of all pushed models or, if they are at a URI, a copy of one."""
    if not isinstance(serving, UriPath):
        yield serving
        return
    with tempfile.TemporaryDirectory(prefix="movielens-serving-") as folder:
        copy_folder(stored_path(pushed), Path(folder, RECOMMENDER, "1"))
        yield Path(folder)
