"""`movielens plan`: says what a run would do, without running anything."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.commands.job import ConfigOption, DataOption, OutputOption, PlannedJob, SetOption, planned_job, window_of
from pipeline.local.choices import MADE_BY
from pipeline.local.quiet_tensorflow import import_tensorflow_quietly
from pipeline.local.tables import champions_lines

if TYPE_CHECKING:
    import numpy as np

    from pipeline.local.plan import Planned

_DOES = {
    "run": "runs",
    "cached": "from the cache",
    "resolve": "looks up",
    "skip": "does nothing",
    "depend": "depends on others",
}


def plan(
    config: ConfigOption = "sample",
    data: DataOption = None,
    output: OutputOption = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what a run with the same options would do: which components would run, and why.

    Names the spans that it would read, and the champion, an earlier model, that each new model would be compared with.
    Nothing is run, and nothing is written to the output folder. Without --data, the synthetic data have to be there
    from an earlier run, or count as new.

    Exits with 2 if the configuration or the data are invalid.
    """
    with planned_job(config, overrides, data, output) as job:
        import_tensorflow_quietly()
        from pipeline.graph import create_pipeline
        from pipeline.local.plan import plan as plan_nodes

        pipeline = create_pipeline(
            config=job.config,
            data_dir=str(job.data),
            pipeline_root=str(job.output.artifacts),
            serving_dir=str(job.output.serving),
        )
        nodes, champions = plan_nodes(pipeline, job.output, _tested(job))
    if as_json:
        as_dicts = {"nodes": [vars(node) for node in nodes], "champions": {n: vars(c) for n, c in champions.items()}}
        typer.echo(json.dumps({"spans": job.spans, **as_dicts}, indent=1))
        return
    console = Console(highlight=False)
    console.print(f"{job.config.name}: {job.data} to {job.output.root}", markup=False, soft_wrap=True)
    if job.spans:
        console.print(job.spans, markup=False, soft_wrap=True)
    console.print(plan_table(nodes))
    does = {node.node: node.does for node in nodes}
    unsure = {name for name in champions if does.get(MADE_BY[name][0]) == "depend"}
    met = {f"{name}, if it is made anew" if name in unsure else name: vars(each) for name, each in champions.items()}
    for line in champions_lines(met):
        console.print(line, soft_wrap=True, markup=False)


def _tested(job: PlannedJob) -> "np.ndarray":
    """The keys of the rows that models would be measured on."""
    from components.ingestion.movielens_example_gen import fitted_and_tested
    from components.ingestion.row_keys import row_keys
    from components.ingestion.spans import Source

    data = job.config.data
    source = Source(job.data, window_of(job.data, job.config), data.split, data.tolerance)
    return row_keys(fitted_and_tested(source.read(), source)).test


def plan_table(nodes: "list[Planned]") -> Table:
    """What would become of each node, and why."""
    table = Table("component", "what it would do", "why", title="Plan", title_justify="left")
    for node in nodes:
        table.add_row(node.node, _DOES[node.does], node.why)
    return table
