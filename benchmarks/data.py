"""Measures time and memory of the data components: `python -m benchmarks.data --data DIR`."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.data_job import COMPONENTS, Cost, Job
from benchmarks.data_sets import write_first_users, write_generated
from benchmarks.options import JsonPath
from benchmarks.report import machine
from benchmarks.scaling import fit_scaling
from components.data.raw_files import DataError, MovieLens, read_movielens
from pipeline.paths import local_path

TOTAL = "all three"

_ROWS = "100000,300000,1000000,4000000"
# Wide enough that no table wraps: a wrapped line would break a Markdown table.
_WIDTH = 400
_LOG_LINES = 15

_progress = Console(stderr=True)


@dataclass(frozen=True)
class Measurement:
    """One job on one data set.

    Attributes:
      job: the implementation that ran.
      source: `MovieLens` or `generated`.
      ratings: number of rows of ratings.dat.
      costs: cost by component.
      rows: rows written, as {component: {split: rows}}.
    """

    job: Job
    source: str
    ratings: int
    costs: dict[str, Cost]
    rows: dict[str, dict[str, int]]

    def cost(self, component: str) -> Cost:
        """Cost of a component, or for TOTAL, of all: their times added up, and the highest of their memory peaks."""
        if component != TOTAL:
            return self.costs[component]
        costs = self.costs.values()
        return Cost(
            seconds=sum(cost.seconds for cost in costs),
            cpu_seconds=sum(cost.cpu_seconds for cost in costs),
            peak_mb=max(cost.peak_mb for cost in costs),
        )


class JobError(RuntimeError):
    """A job failed; the message ends with the last lines of its output."""


def main(
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="ML1M_DIR",
            metavar="DIR",
            parser=local_path,
            help="Folder of MovieLens 1M. Sizes up to its own are measured on its first users; larger ones, or all "
            "without this option, on generated data.",
        ),
    ] = None,
    rows: Annotated[str, typer.Option(help="Sizes to measure, in ratings, separated by commas.")] = _ROWS,
    baseline_rows: Annotated[
        int, typer.Option(min=0, help="Size at which the straightforward job is measured too; 0 for none.")
    ] = 1_000_000,
    json_path: JsonPath = None,
) -> None:
    """Measures ExampleGen, StatisticsGen and Transform on data of several sizes, each size in a process of its own.

    At one of the sizes, also measures the same work written the straightforward way (benchmarks/straightforward.py).
    """
    sizes = _parse_sizes(rows) | ({baseline_rows} if baseline_rows else set())
    try:
        movielens = read_movielens(data) if data else None
        measurements = list(_measure_all(sorted(sizes), baseline_rows, data, movielens))
    except (DataError, JobError) as error:
        _progress.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, DataError) else 1) from error
    document = summarise(measurements)
    _print(document)
    if json_path:
        json_path.write_text(json.dumps(document, indent=2) + "\n")


def _parse_sizes(text: str) -> set[int]:
    try:
        sizes = {int(part) for part in text.split(",")}
    except ValueError:
        sizes = set()
    if not sizes or min(sizes) < 1:
        raise typer.BadParameter(f"should be numbers from 1, as in {_ROWS}; received {text!r}.")
    return sizes


def _measure_all(
    sizes: list[int], baseline_rows: int, source: Path | None, movielens: MovieLens | None
) -> Iterator[Measurement]:
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            folder = Path(name) / "data"
            if source and movielens and size <= len(movielens.ratings):
                kind, ratings = "MovieLens", write_first_users(source, movielens, size, folder)
            else:
                kind, ratings = "generated", write_generated(size, folder)
            for job in Job:
                if job is Job.PIPELINE or size == baseline_rows:
                    costs, rows = _run(job, folder, Path(name) / job)
                    measurement = Measurement(job, kind, ratings, costs, rows)
                    _progress.print(f"{job}: {ratings:,} ratings, {measurement.cost(TOTAL).seconds:.0f} s")
                    yield measurement


def _run(job: Job, data: Path, root: Path) -> tuple[dict[str, Cost], dict[str, dict[str, int]]]:
    """Runs a job in a new process, and returns its costs and the number of rows it wrote.

    Raises:
      JobError: the process failed.
    """
    root.mkdir()
    result = root / "result.json"
    options = {"--job": job, "--data": data, "--root": root, "--result": result}
    arguments = [str(part) for option in options.items() for part in option]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.data_job", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if process.returncode:
        last = "\n".join(process.stdout.splitlines()[-_LOG_LINES:])
        raise JobError(f"The {job} job ended with {process.returncode}:\n{last}")
    document = json.loads(result.read_text())
    return {name: Cost(**cost) for name, cost in document["costs"].items()}, document["rows"]


def summarise(measurements: list[Measurement]) -> dict[str, Any]:
    """All results: the measurements, how the pipeline's cost grows, and the comparison with the straightforward job."""
    of_pipeline = [measurement for measurement in measurements if measurement.job is Job.PIPELINE]
    scaling = {}
    for component in (*COMPONENTS, TOTAL):
        fit = fit_scaling(
            [each.ratings for each in of_pipeline], [each.cost(component).seconds for each in of_pipeline]
        )
        if fit:
            scaling[component] = asdict(fit)
    return {
        "machine": machine(),
        "measurements": [
            {
                "job": each.job.value,
                "source": each.source,
                "ratings": each.ratings,
                "costs": {component: asdict(each.cost(component)) for component in (*COMPONENTS, TOTAL)},
                "rows": each.rows,
            }
            for each in measurements
        ],
        "scaling": scaling,
        "comparison": _compare(measurements),
    }


def _compare(measurements: list[Measurement]) -> dict[str, Any] | None:
    """Compares the pipeline with the straightforward job on the same data; None if the latter was not measured."""
    straightforward = next((each for each in measurements if each.job is Job.STRAIGHTFORWARD), None)
    if straightforward is None:
        return None
    pipeline = next(
        each for each in measurements if each.job is Job.PIPELINE and each.ratings == straightforward.ratings
    )
    return {
        "ratings": pipeline.ratings,
        # Compares the splits that the pipeline writes: unlike the other job, its Transform leaves out the test split.
        "same_rows": all(
            straightforward.rows[component][split] == count
            for component, splits in pipeline.rows.items()
            for split, count in splits.items()
        ),
        "times_faster": {
            component: straightforward.cost(component).seconds / pipeline.cost(component).seconds
            for component in (*COMPONENTS, TOTAL)
        },
    }


def _print(document: dict[str, Any]) -> None:
    console = Console(width=_WIDTH, highlight=False, markup=False)
    console.print("Machine: " + ", ".join(f"{key} {value}" for key, value in document["machine"].items()) + ".")
    comparison = document["comparison"]
    tables = [_costs_table(document["measurements"])]
    if document["scaling"]:
        tables.append(_scaling_table(document["scaling"]))
    if comparison:
        tables.append(_comparison_table(document["measurements"], comparison))
    for lines in tables:
        with console.capture() as capture:
            console.print(lines)
        console.print()
        console.print(capture.get().strip())
    if comparison:
        console.print(f"\nRows per split are {'the same' if comparison['same_rows'] else 'NOT the same'} in both.")


def _table(*headings: str) -> Table:
    table = Table(box=box.MARKDOWN)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    return table


def _costs_table(measurements: list[dict[str, Any]]) -> Table:
    table = _table("component", "job", "data", "ratings", "seconds", "CPU seconds", "ratings/s", "µs/rating", "peak MB")
    for component in (*COMPONENTS, TOTAL):
        for each in measurements:
            cost, ratings = each["costs"][component], each["ratings"]
            seconds = cost["seconds"]
            table.add_row(
                component,
                each["job"],
                each["source"],
                f"{ratings:,}",
                f"{seconds:.1f}",
                f"{cost['cpu_seconds']:.1f}",
                f"{ratings / seconds:,.0f}",
                f"{seconds / ratings * 1e6:.1f}",
                f"{cost['peak_mb']:,}",
            )
    return table


def _scaling_table(scaling: dict[str, dict[str, float]]) -> Table:
    table = _table(
        "component", "fixed s", "µs per further rating", "largest/smallest µs/rating", "without the fixed part"
    )
    for component, fit in scaling.items():
        table.add_row(
            component,
            f"{fit['fixed']:.1f}",
            f"{fit['per_row'] * 1e6:.1f}",
            f"{fit['ratio']:.2f}",
            f"{fit['ratio_beyond_fixed']:.2f}",
        )
    return table


def _comparison_table(measurements: list[dict[str, Any]], comparison: dict[str, Any]) -> Table:
    table = _table(f"{comparison['ratings']:,} ratings", "pipeline s", "straightforward s", "times faster")
    seconds = {
        each["job"]: {component: cost["seconds"] for component, cost in each["costs"].items()}
        for each in measurements
        if each["ratings"] == comparison["ratings"]
    }
    for component, times in comparison["times_faster"].items():
        pipeline, straightforward = seconds[Job.PIPELINE][component], seconds[Job.STRAIGHTFORWARD][component]
        table.add_row(component, f"{pipeline:.1f}", f"{straightforward:.1f}", f"{times:.2f}")
    return table


if __name__ == "__main__":
    typer.run(main)
