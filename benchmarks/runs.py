"""Prints the figures of several runs as means: `python -m benchmarks.runs --output DIR --output DIR ...`.

The runs should differ in a seed alone, such as that of the split. Their figures are those that the Evaluator measured,
as they stand in each run's summary.json.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.paths import local_path
from trainers.registry import MODELS, RECOMMENDER

_MODEL_METRICS = ("recall_at_10", "recall_at_10_filtered", "ndcg_at_10_filtered", "rmse", "mae")
_LIST_METRICS = tuple(
    f"{liked}{name}" for liked in ("", "liked_") for name in ("recall_at_5", "recall_at_10", "ndcg_at_10")
)
_LISTS = {
    "baseline": "popularity",
    "by_group": "popularity by gender and age",
    "retrieval": "the retriever's own order",
    "metrics": "recommender",
}

Summary = Mapping[str, Any]


def main(
    outputs: Annotated[
        list[Path], typer.Option("--output", help="Output folder of a run; several.", metavar="DIR", parser=local_path)
    ],
) -> None:
    """Prints the test figures of runs, as means and standard deviations over the runs, in Markdown."""
    summaries = [_read(output) for output in outputs]
    console = Console(width=200, highlight=False)
    for output, summary in zip(outputs, summaries, strict=True):
        seeds = ", ".join(f"{name} {seed}" for name, seed in summary["seeds"].items())
        machine = summary["machine"]
        console.print(
            f"{output.name}: {summary['config']}, {summary['split']['strategy']} split, seeds: {seeds}; "
            f"{summary['seconds'] / 60:.0f} min, {summary['peak_rss_mb']} MB; {machine['cpus']} processors."
        )
    for table in (_models(summaries), _lists(summaries), _kept(summaries)):
        console.print()
        console.print(table)


def _read(output: Path) -> Summary:
    path = output / "summary.json"
    if not path.is_file():
        raise typer.BadParameter(f"{output} should hold the summary.json of a run that came to its end.")
    summary: Summary = json.loads(path.read_text())
    return summary


def _models(summaries: Sequence[Summary]) -> Table:
    """Each model's test metrics beside its trivial baseline's."""
    table = Table("model", *map(_title, _MODEL_METRICS), box=box.MARKDOWN)
    for name in MODELS:
        for key, title in (("metrics", name), ("baseline", f"{name}'s baseline")):
            table.add_row(title, *(_cell(summaries, "models", name, key, metric) for metric in _MODEL_METRICS))
    return table


def _lists(summaries: Sequence[Summary]) -> Table:
    """The recommender's list beside its retriever's own order and popularity."""
    table = Table("list", *map(_title, _LIST_METRICS), box=box.MARKDOWN)
    for key, title in _LISTS.items():
        table.add_row(title, *(_cell(summaries, RECOMMENDER, key, metric) for metric in _LIST_METRICS))
    return table


def _kept(summaries: Sequence[Summary]) -> Table:
    """The share of its quality that each model keeps in each situation."""
    first = summaries[0]
    entries = {("models", name): first["models"].get(name, {}) for name in MODELS} | {
        (RECOMMENDER,): first[RECOMMENDER]
    }
    kept = {(place, metric): of for place, entry in entries.items() for metric, of in entry.get("kept", {}).items()}
    situations = list(next(iter(kept.values()), {}))
    table = Table("model", "metric", *map(_title, situations), box=box.MARKDOWN)
    for place, metric in kept:
        cells = [_cell(summaries, *place, "kept", metric, situation, digits=3) for situation in situations]
        table.add_row(place[-1], _title(metric), *cells)
    return table


def _cell(summaries: Sequence[Summary], *keys: str, digits: int = 4) -> str:
    """The mean of a figure and, of several runs, its standard deviation; "" where a run does not have it."""
    values = [_figure(summary, keys) for summary in summaries]
    known = [value for value in values if isinstance(value, float)]
    if len(known) < len(values):
        return ""
    mean = f"{statistics.fmean(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.{digits}f}"


def _figure(summary: Summary, keys: Sequence[str]) -> Any:
    found: Any = summary
    for key in keys:
        found = (found or {}).get(key)
    return found


def _title(name: str) -> str:
    return name.replace("_at_", "@").replace("_", " ")


if __name__ == "__main__":
    typer.run(main)
