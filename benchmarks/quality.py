"""Prints the table of results on MovieLens 1M: `python -m benchmarks.quality --data DIR`."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.dataset import Dataset, divide
from benchmarks.methods import METHODS
from benchmarks.report import (
    RATING_COLUMNS,
    RETRIEVAL_COLUMNS,
    Row,
    Run,
    SummaryError,
    machine,
    rows_from_summaries,
    table,
)
from benchmarks.reported import REPORTED
from components.data.raw_files import DataError, read_movielens
from components.splits import SplitConfig

# Wide enough for a table never to wrap: wrapped Markdown is no table.
_WIDTH = 400

_progress = Console(stderr=True)


def main(
    data: Annotated[Path, typer.Option(help="Folder with ratings.dat, users.dat and movies.dat.")],
    seeds: Annotated[str, typer.Option(help="Seeds of the split and of the models, separated by commas.")] = "0,1,2",
    only: Annotated[
        str, typer.Option(help=f"Methods to measure, separated by commas; all are {', '.join(METHODS)}.")
    ] = ",".join(METHODS),
    summary: Annotated[
        list[Path] | None,
        typer.Option(help="summary.json of a pipeline run on the same split; its models become rows. Repeatable."),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="File to write the results to.")] = None,
) -> None:
    """Measures simple methods and the original notebooks' models, each on the pipeline's own random 73/2/25 split.

    Settings are chosen on the eval split; the test split is looked at once. Top-k metrics rank the whole catalogue and
    count ties against the model; filtered ones leave out a user's train movies.
    """
    seed_list = parse_seeds(seeds)
    methods = _methods(only)
    try:
        movielens = read_movielens(data)
        pipeline_rows = rows_from_summaries(summary or [])
    except (DataError, SummaryError) as error:
        _progress.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error

    datasets = {seed: divide(movielens, SplitConfig(seed=seed)) for seed in seed_list}
    measured = [
        Row(METHODS[method].title, "measured", [_measure(method, datasets[seed], seed) for seed in seed_list])
        for method in methods
    ]
    reported = [Row(title, "reported", [Run(metrics)]) for title, metrics in REPORTED.items()]
    rows = [*measured, *reported, *pipeline_rows]
    context = _context(datasets)
    _print(context, rows)
    if json_path:
        document = context | {"rows": [row.as_dict() for row in rows]}
        json_path.write_text(json.dumps(document, indent=2) + "\n")


def parse_seeds(text: str) -> list[int]:
    """Seeds from the command line: different numbers, separated by commas."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise typer.BadParameter(f"should be different numbers from 0, as in 0,1,2; received {text!r}.")
    return seeds


def _methods(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in METHODS:
            raise typer.BadParameter(f"should be among {', '.join(METHODS)}; received {name!r}.")
    return names


def _measure(method: str, data: Dataset, seed: int) -> Run:
    started = time.monotonic()
    result = METHODS[method].measure(data, seed)
    seconds = time.monotonic() - started
    chosen = ", ".join(f"{key} {value:g}" for key, value in result.settings.items())
    _progress.print(f"seed {seed}: {method}, {seconds:.0f} s" + (f", chosen {chosen}" if chosen else ""))
    return Run(result.metrics, {"seed": seed, "seconds": round(seconds, 1), "settings": result.settings})


def _context(datasets: dict[int, Dataset]) -> dict[str, Any]:
    config = SplitConfig()
    first = next(iter(datasets.values()))
    return {
        "split": {
            "strategy": config.strategy.value,
            "fractions": config.fractions.model_dump(),
            "users": first.n_users,
            "movies": first.n_movies,
            "seeds": {seed: {"test": len(data.test), "hash": data.split_hash} for seed, data in datasets.items()},
        },
        "machine": machine(),
    }


def _print(context: dict[str, Any], rows: list[Row]) -> None:
    split = context["split"]
    shares = ", ".join(f"{name} {share:g}" for name, share in split["fractions"].items())
    seeds = ", ".join(f"{seed} ({part['test']:,} test ratings)" for seed, part in split["seeds"].items())
    deviations = "; mean ± standard deviation" if len(split["seeds"]) > 1 else ""
    tables = [table("retrieval", RETRIEVAL_COLUMNS, rows), table("ratings", RATING_COLUMNS, rows)]
    console = Console(width=_WIDTH, highlight=False, markup=False)
    console.print(f"Split: {split['strategy']}; {shares}; seeds {seeds}{deviations}.")
    console.print(f"Ranks are among all {split['movies']:,} movies; ties count against the model.")
    console.print("Machine: " + ", ".join(f"{key} {value}" for key, value in context["machine"].items()) + ".")
    for lines in tables:
        with console.capture() as capture:
            console.print(lines)
        console.print()
        console.print(capture.get().strip())


if __name__ == "__main__":
    typer.run(main)
