"""`movielens tune`: searches for hyper-parameters of a model, and writes the configuration with the best."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.storage.paths import stored_path
from pipeline.commands.job import (
    ConfigOption,
    DataOption,
    Job,
    OutputOption,
    SetOption,
    announce,
    messages_only,
    prepared_job,
    recover_first,
)
from trainers.registry import MODELS

if TYPE_CHECKING:
    from pipeline.local.logs import Consoles
    from pipeline.local.search import Search

_CONFIG = "sample"


# Its members come from the registry, which mypy cannot follow.
Model = StrEnum("Model", {name.upper(): name for name in MODELS})  # type: ignore[misc]


def tune(
    model: Annotated[Model, typer.Argument(help="Whose hyper-parameters to look for.", show_default=False)],
    config: ConfigOption = _CONFIG,
    data: DataOption = None,
    output: OutputOption = None,
    overrides: SetOption = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Maximum number of trials; the first one uses the configured settings.",
            show_default="tuning.max_trials",
        ),
    ] = None,
) -> None:
    """Search for better hyper-parameters of a model, measured on the eval split.

    The values to try are in the configuration, under tuning.space. With the output folder of a run, the data come from
    the cache. A search that was cut off goes on from the trials that finished, and so does one that is to have more.

    Writes tuned-MODEL.yaml to the output folder: the configuration with the best hyper-parameters, for
    `movielens run --config`.

    Exits with 0 if the search came to its end, 1 if something failed, and 2 if the configuration or the data are not as
    they should be.
    """
    command = _command(model, config, data, output, overrides, trials)
    limit = [] if trials is None else [f"tuning.max_trials={trials}"]
    with (
        prepared_job(config, [*(overrides or []), *limit], data, output) as job,
        messages_only(job.output, "the same command goes on from the trials that finished.") as consoles,
    ):
        from pipeline.local.search import trials_table, write_tuned

        search = _search(job, model, consoles)
        path = job.output.tuned(model)
        write_tuned(job.config, search, command, path)
        consoles.out.print(trials_table(search))
        lines = (f"Best: trial {search.best.number}, as configuration: {path}", f"Log: {consoles.log}")
        consoles.out.print(*lines, sep="\n", soft_wrap=True, markup=False)


def _command(
    model: Model,
    config: str,
    data: Path | None,
    output: Path | None,
    overrides: list[str] | None,
    trials: int | None,
) -> str:
    """The command line that asks for the same search."""
    words = ["movielens", "tune", model.value]
    words += ["--config", config] if config != _CONFIG else []
    words += ["--data", str(data)] if data else []
    words += ["--output", str(output)] if output else []
    words += [word for override in overrides or [] for word in ("--set", override)]
    words += ["--trials", str(trials)] if trials else []
    return shlex.join(words)


def _search(job: Job, model: Model, consoles: "Consoles") -> "Search":
    from pipeline.local.progress import RunProgress

    announce(job, consoles)

    from pipeline.graph import create_tuning_pipeline
    from pipeline.local.choices import read_outputs
    from pipeline.local.runner import run_pipeline
    from pipeline.local.search import Search, read_trials
    from pipeline.model_stage import tuner_settings
    from trainers.loop.tuning import search_folder

    recover_first(job.output, consoles)
    root = str(job.output.artifacts)
    pipeline = create_tuning_pipeline(
        config=job.config,
        model=model.value,
        data_dir=str(job.data),
        pipeline_root=root,
        metadata_connection_config=job.output.store.connection,
    )
    with RunProgress(consoles.err, total=len(pipeline.components)) as progress:
        nodes = run_pipeline(pipeline, "local", progress)
    outputs = read_outputs(job.output.store.open(), nodes)
    objective = MODELS[model.value].spec(job.config.models[model.value]).objective
    graph = outputs["Transform"]["transform_graph"].uri
    records = search_folder(tuner_settings(model.value, job.config, root), graph)
    results = outputs[f"Tuner.{model.value}"]["tuner_results"].uri
    return Search(model.value, objective.name, objective.sign, read_trials(stored_path(results), stored_path(records)))
