"""Times the pipeline node by node, each in a process of its own, beside a run of all nodes in one process.

`python -m benchmarks.nodes --output DIR` runs the generated sample both ways into new folders, one after the other, and
then has Airflow read the DAG of these nodes.
"""

import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.options import Overrides
from benchmarks.report import machine
from pipeline.paths import artifact_path

_COMMAND = "import sys; from pipeline.cli import main; sys.exit(main())"
# Airflow as its scheduler has it: loaded already when it reads a folder of DAGs.
_READ_DAG = """
import sys, time
import airflow
from airflow.models import DagBag
start = time.perf_counter()
bag = DagBag(sys.argv[1], include_examples=False)
seconds = time.perf_counter() - start
assert not bag.import_errors, bag.import_errors
print(f"Airflow {airflow.__version__} reads the DAG in {seconds:.2f} s.")
"""
_DAG = """# An Airflow DAG.
from pipeline.airflow_dag import create_dag
dag = create_dag()
"""
_ENDED_WELL = (0, 3)  # Also if a model is not good enough to be pushed.


@dataclass(frozen=True)
class Cost:
    """What processes took: seconds by the clock and of the processor, of themselves and of those they started."""

    seconds: float
    cpu_seconds: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


def main(
    output: Annotated[Path, typer.Option(help="A new folder for both runs.", metavar="DIR", parser=artifact_path)],
    config: Annotated[str, typer.Option(help="A preset or a YAML file; its data are generated.")] = "sample",
    settings: Overrides = None,
) -> None:
    """Runs the sample in one process and then node by node, and prints a Markdown table.

    Exits with 1 if the two ways did not make the same models.
    """
    console = Console(width=200, highlight=False)
    if output.exists():
        raise typer.BadParameter(f"should be a new folder; {output} is there.", param_hint="--output")
    output.mkdir(parents=True)
    options = [word for setting in settings or [] for word in ("--set", setting)]
    whole, data = output / "whole", output / "whole" / "data"
    console.print("Machine: " + ", ".join(f"{key} {value}" for key, value in machine().items()) + ".")
    in_one = _cost("run", "--config", config, "--output", str(whole), *options)
    (generated,) = data.iterdir()
    file, nodes = output / "pipeline.pb", output / "nodes"
    folders = ["--data", str(generated), "--root", str(nodes), "--output", str(file)]
    compiling = _cost("compile", "--config", config, *folders, *options)
    run = ["--pipeline", str(file), "--run-id", "one"]
    ids = [node["id"] for node in json.loads(file.with_suffix(".json").read_text())["nodes"]]
    of_nodes = {}
    for number, node in enumerate(ids, start=1):
        print(f"[{number}/{len(ids)}] {node}", file=sys.stderr)  # noqa: T201
        of_nodes[node] = _cost("run-node", "--node", node, *run)
    summing_up = _cost("summary", *run)
    one_by_one = sum(of_nodes.values(), start=compiling + summing_up)
    # Resolvers do next to nothing, so that their processes show what a process costs.
    idle = sorted(cost.seconds for node, cost in of_nodes.items() if node.startswith("Resolver"))
    idle_cpu = sorted(cost.cpu_seconds for node, cost in of_nodes.items() if node.startswith("Resolver"))
    table = Table("way to run", "seconds", "CPU seconds", "times as long", box=box.MARKDOWN)
    for title, cost in {"one process": in_one, f"{len(ids)} nodes one by one": one_by_one}.items():
        table.add_row(title, f"{cost.seconds:.0f}", f"{cost.cpu_seconds:.0f}", f"{cost.seconds / in_one.seconds:.2f}")
    console.print(table)
    middle = len(idle) // 2
    console.print(
        f"A node that does next to nothing takes {idle[middle]:.1f} s, {idle_cpu[middle]:.1f} of the processor."
    )
    console.print(_dag_is_read(file.with_suffix(".json"), output / "airflow"))
    if _metrics(whole) != _metrics(nodes):
        console.print("The two ways did not make the same models.")
        raise typer.Exit(1)


def _cost(*arguments: str) -> Cost:
    """Calls `movielens`, and says what that took."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, "-c", _COMMAND, *arguments], capture_output=True, text=True, check=False)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    if done.returncode not in _ENDED_WELL:
        raise RuntimeError(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return Cost(end - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _dag_is_read(description: Path, folder: Path) -> str:
    """Says how long Airflow takes to read the DAG of a compiled pipeline, in a process of its own."""
    if importlib.util.find_spec("airflow") is None:
        return "Airflow is not installed, so it did not read the DAG; it comes with the extra 'airflow'."
    dags = folder / "dags"
    dags.mkdir(parents=True)
    (dags / "movielens.py").write_text(_DAG)
    settings = {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "MOVIELENS_PIPELINE": str(description),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    program = [sys.executable, "-c", _READ_DAG, str(dags)]
    done = subprocess.run(program, env=os.environ | settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Airflow could not read the DAG.\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def _metrics(output: Path) -> dict[str, dict[str, str]]:
    """The test metrics of the models, to six digits after the point; as text, in which one that is missing is equal."""
    summary = json.loads((output / "summary.json").read_text())
    models = summary["models"] | {"recommender": summary["recommender"]}
    return {
        name: {metric: "" if value is None else f"{value:.6f}" for metric, value in model["metrics"].items()}
        for name, model in models.items()
    }


if __name__ == "__main__":
    typer.run(main)
