"""The commands by which an orchestrator runs the pipeline node by node: `compile`, `run-node` and `summary`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.job import (
    MINIMUM_FREE_MEGABYTES,
    SetOption,
    describe_move,
    messages_only,
)
from pipeline.commands.results import NOT_BLESSED, end_by, show_results
from pipeline.local.errors import RunError
from pipeline.local.quiet_tensorflow import import_tensorflow_quietly
from pipeline.nodes import ONLY_REPORT
from pipeline.paths import data_path, local_path

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.local.compiled import Compiled
    from pipeline.local.output import OutputFolder

PipelineOption = Annotated[
    Path,
    typer.Option(
        "--pipeline", help="The pipeline, as `movielens compile` wrote it.", metavar="FILE.pb", parser=local_path
    ),
]
RunIdOption = Annotated[
    str, typer.Option("--run-id", help="The name of the run; the nodes of one run share it.", metavar="NAME")
]


RefusedOkOption = Annotated[
    bool,
    typer.Option(
        "--refused-ok",
        help="Exit with 0, and not with 3, if there is nothing to go on with; for orchestrators without skipped tasks.",
    ),
]


def compile_(
    config: Annotated[
        str | None,
        typer.Option(help="A preset (sample, ml1m) or a YAML file.", metavar="NAME|FILE.yaml", show_default="sample"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with ratings.dat, users.dat, movies.dat and, optionally, credits.csv; it may be a URI.",
            metavar="DIR|URI",
            parser=data_path,
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder for everything that the runs write, as --output of `movielens run`.",
            metavar="DIR",
            parser=local_path,
            show_default="output/<name of the configuration>",
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE.pb", parser=local_path)] = Path(
        "pipeline.pb"
    ),
    overrides: SetOption = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="FILE.json of a compiled pipeline, from which configuration and folders are taken instead. The nodes "
            "have to be the same.",
            metavar="FILE.json",
            parser=local_path,
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            help="Reuse the results of components whose inputs have not changed.",
            show_default="--cache, or as in --like",
        ),
    ] = None,
    expected: Annotated[
        str | None,
        typer.Option(
            "--nodes",
            help="Write nothing unless these are the nodes, each with those that it waits for, as JSON; for "
            "orchestrators that drew the graph before.",
            metavar="JSON",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compile the pipeline, so that an orchestrator can run each node in a process of its own.

    `movielens run-node` does that with what is compiled. Writes FILE.pb, TFX's intermediate representation, and
    FILE.json beside it, which lists the nodes with what each waits for. Paths are written as they are here: compile on
    the machine, or in the image, that runs the nodes. The data are not read: they may change from run to run.

    Exits with 2 if the configuration is invalid, or the file cannot be written, and with 1 if a run is writing to the
    folder, since artifacts of earlier runs are looked for if it was moved.
    """
    import_tensorflow_quietly()
    from pipeline.config import config_of, load_config
    from pipeline.graph import create_pipeline
    from pipeline.launcher import compile_pipeline
    from pipeline.local.compiled import Compiled, description, read_description, write
    from pipeline.local.output import OutputFolder
    from pipeline.paths import PathError, check_no_pattern

    nodes: dict[str, list[str]] | None = None
    if like is not None:
        if root is not None or config is not None or expected is not None:
            raise PathError(
                "--like: the file has the configuration, the folder of the runs and the nodes; give no --config, "
                "--root or --nodes."
            )
        described = read_description(like)
        settings = config_of(str(like), described.config, overrides)
        _check_metadata(settings, config_of(str(like), described.config, None), like)
        data, folder, nodes = data or described.data, described.output, described.nodes
        cache = described.cache if cache is None else cache
    else:
        settings = load_config(config or "sample", overrides)
        folder = OutputFolder((root or Path("output") / settings.name).absolute())
        if expected is not None:
            nodes = _expected(expected, settings, config or "sample")
        cache = True if cache is None else cache
    if data is None:
        raise PathError("--data: should name the folder of the data; it is missing.")
    check_no_pattern("--root", str(folder.root))
    if output.suffix == ".json" or output.is_dir():
        raise PathError(f"--output: should be a file such as pipeline.pb; received {str(output)!r}.")
    folder.keep_metadata(settings.metadata.backend)
    folder.keep_storage(settings.storage, write=False)
    _follow_move(folder)
    pipeline = create_pipeline(
        config=settings,
        data_dir=str(data.resolve()),
        # A new folder does not know its places before all is checked.
        pipeline_root=settings.storage.artifacts or str(folder.artifacts),
        serving_dir=settings.storage.serving or str(folder.serving),
        metadata_connection_config=folder.store.connection,
        enable_cache=cache,
    )
    compiled = Compiled(compile_pipeline(pipeline), settings, data.resolve(), folder, cache)
    if nodes is not None:
        _check_nodes(compiled.nodes, nodes, f"in {like}" if like is not None else "the orchestrator has them")
    folder.keep_storage(settings.storage)
    try:
        write(compiled, output)
    except OSError as error:
        raise PathError(f"--output: {output} should be a file that can be written; {error.strerror}.") from error
    typer.echo(f"{len(compiled.ir.nodes)} nodes of {settings.name}: {output}, {description(output)}")


def _check_metadata(settings: "Config", before: "Config", like: Path) -> None:
    """Refuses another place for the metadata than that of the pipeline which all runs of an orchestrator are like."""
    from pipeline.config import ConfigError

    if settings.metadata != before.metadata:
        raise ConfigError(
            f"--set: metadata.backend should be {before.metadata.backend}, as in {like}, since runs know of each other "
            f"by their metadata; received {settings.metadata.backend}."
        )


def _expected(text: str, settings: "Config", config: str) -> dict[str, list[str]]:
    """The nodes that an orchestrator has drawn from a configuration, by the option --nodes.

    Raises:
      ConfigError: the option is invalid, or settings change what only the orchestrator can have followed.
    """
    from pipeline.config import ConfigError, load_config

    try:
        nodes = {str(node): [str(each) for each in upstream] for node, upstream in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"--nodes: should be JSON, lists of nodes by node; {error}.") from error
    if settings.kubeflow != load_config(config).kubeflow:
        raise ConfigError(
            "--set: the section `kubeflow` says how containers are started, and this run's have been; write the file "
            "for Kubeflow anew instead."
        )
    return nodes


def _check_nodes(compiled: dict[str, list[str]], wanted: dict[str, list[str]], where: str) -> None:
    """Refuses a pipeline whose graph is not the one that an orchestrator has."""
    from pipeline.config import ConfigError

    if other := sorted(node for node in {*compiled, *wanted} if compiled.get(node) != wanted.get(node)):
        raise ConfigError(
            f"--set: should leave the nodes, and what they wait for, as {where}; what differs: {', '.join(other)}. "
            "Have the orchestrator's graph made anew with these settings."
        )


def _follow_move(folder: "OutputFolder") -> None:
    """Finds the artifacts of earlier runs again if their folder was moved: what is compiled names the new one."""
    folder.check_metadata(alone=False)
    folder.store.begin()
    if not folder.store.exists:
        return
    from pipeline.local.relocation import follow_move

    with folder.locked("wait for it"):
        for old in follow_move(folder.store.open(), folder):
            typer.echo(describe_move(old), err=True)


def run_node(
    node: Annotated[str, typer.Option(help="The id of the node, as in the file that lists them.", metavar="ID")],
    run_id: RunIdOption,
    pipeline: PipelineOption = Path("pipeline.pb"),
    refused_ok: RefusedOkOption = False,
) -> None:
    """Run one node of a compiled pipeline in this process.

    Those that it waits for have to be done. Nodes that do not wait for each other may run at the same time. A node that
    was killed may be run again, and goes on as if it had never begun; one that came to its end does nothing when it is
    run again.

    Exits with 0 if the node is done, or its result came from the cache; 1 if it failed; 2 if the data or the compiled
    pipeline are invalid; and 3 if there is nothing to go on with: a model was not blessed, or was withdrawn, so that it
    is not pushed.
    """
    compiled = _read(pipeline)
    from pipeline.config import ConfigError

    if node not in compiled.nodes:
        raise ConfigError(f"--node: should be one of {', '.join(compiled.nodes)}; received {node!r}.")
    if not run_id.strip():
        raise ConfigError("--run-id: should be a name; it is empty.")
    compiled.output.prepare(MINIMUM_FREE_MEGABYTES)
    compiled.output.check_places(compiled.config.storage)
    with messages_only(compiled.output, "the same command runs the node again.", alone=False) as consoles:
        from pipeline.local.single_node import run_node as run_one
        from pipeline.local.single_node import why_nothing_came_of_it

        consoles.err.print(f"{node} of {compiled.config.name}, run {run_id} …", markup=False, soft_wrap=True)
        done = run_one(compiled, node, run_id)
        why = why_nothing_came_of_it(compiled, done, run_id)
        ended = f"{node}: {done.state}, {done.seconds:.1f} s" + (f"; {why}." if why else "")
        consoles.err.print(ended, markup=False, soft_wrap=True)
    if why and not refused_ok:
        raise typer.Exit(NOT_BLESSED)


def summary(
    run_id: RunIdOption, pipeline: PipelineOption = Path("pipeline.pb"), refused_ok: RefusedOkOption = False
) -> None:
    """Show the results of a run whose nodes were run one by one, and write them to summary.json.

    Exits like `movielens run`: with 0 if all models were pushed, 1 if a node failed or has not run, and 3 if a model
    was not pushed.
    """
    compiled = _read(pipeline)
    unknown = RunError(f"--run-id: should name a run of {pipeline}; received {run_id!r}, which has no nodes.")
    if not compiled.output.store.exists:
        raise unknown
    compiled.output.check_metadata(alone=False)
    with messages_only(compiled.output, "the same command shows them.", alone=False) as consoles:
        from pipeline.local.report import summary_of_run, write_summary
        from pipeline.local.single_node import read_run

        nodes = read_run(compiled, run_id)
        if not nodes:
            raise unknown
        for node in nodes.values():
            if node.state == "failed" and node.id not in ONLY_REPORT:
                raise RunError(f"{node.id} failed: {node.problem}")
        if missing := [node for node in compiled.nodes if node not in nodes]:
            raise RunError(f"{', '.join(missing)} should have run in {run_id!r} first.")
        results = summary_of_run(
            compiled.output.store.open(),
            compiled.config,
            list(nodes.values()),
            seconds=sum(node.seconds for node in nodes.values()),
            peak_rss_mb=None,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            log=compiled.output.logs,
        )
        write_summary(results, compiled.output.summary)
        show_results(results, consoles.out)
        consoles.out.print(f"Summary: {compiled.output.summary}", soft_wrap=True)
    end_by(results, refused_ok)


def _read(path: Path) -> "Compiled":
    import_tensorflow_quietly()
    from pipeline.local.compiled import read

    return read(path)
