"""Measures the quality of all methods on MovieLens 1M: `python -m benchmarks.quality --data DIR`."""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from benchmarks.dataset import split_ratings
from benchmarks.methods import METHODS, Case
from benchmarks.metrics import means
from benchmarks.options import CacheFolder, DataFolder, JsonPath, Overrides, Preset, Seeds, parse_names, parse_seeds
from benchmarks.protocols import PROTOCOLS, Protocol
from benchmarks.report import RATING_COLUMNS, RETRIEVAL_COLUMNS, Row, Run, machine, table
from benchmarks.results import Results
from components.data.contents import content_hash
from components.data.raw_files import DataError, MovieLens, read_movielens
from pipeline.config import ConfigError, load_config
from pipeline.model_settings import ModelsConfig

if TYPE_CHECKING:
    from benchmarks.transformed import Transformed

# The metrics in the progress line that is printed after each measurement.
_PROGRESS_METRICS = ("recall_at_10", "recall_at_10_filtered", "rmse")

# Wide enough that no table wraps: a wrapped line would break a Markdown table.
_WIDTH = 400

_progress = Console(stderr=True)


def main(
    data: DataFolder,
    cache: CacheFolder = Path("output/benchmark-quality"),
    seeds: Seeds = "1,2,3",
    protocols: Annotated[
        str, typer.Option(help=f"Ways to split, separated by commas; all are {', '.join(PROTOCOLS)}.")
    ] = ",".join(PROTOCOLS),
    only: Annotated[
        str, typer.Option(help=f"Methods to measure, separated by commas; all are {', '.join(METHODS)}.")
    ] = ",".join(METHODS),
    config: Preset = "ml1m",
    overrides: Overrides = None,
    json_path: JsonPath = None,
) -> None:
    """Measures the pipeline's models, simple methods and the original notebooks' models on the pipeline's own splits.

    Settings are chosen on the eval split; the test split is used once, for the reported metrics. The preset's settings
    were chosen on the eval split of seed 0. Top-k metrics rank the whole catalogue and count ties against the model;
    filtered ones leave out the movies that the user is known to have rated. `--set data.history_length=100` gives the
    models longer histories; the split is the protocol's, whatever the configuration says. A run that was killed can be
    started again and continues with the missing measurements.
    """
    seed_list = parse_seeds(seeds)
    chosen = [PROTOCOLS[name] for name in parse_names(protocols, PROTOCOLS)]
    methods = parse_names(only, METHODS)
    try:
        settings = load_config(config, overrides)
        movielens = read_movielens(data)
    except (DataError, ConfigError) as error:
        _progress.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    benchmark = _QualityBenchmark(data, cache, movielens, settings.models, settings.data.history_length)
    document: dict[str, Any] = {"machine": machine(), "models": settings.models.model_dump(), "protocols": []}
    console = Console(width=_WIDTH, highlight=False, markup=False)
    console.print("Machine: " + ", ".join(f"{key} {value}" for key, value in document["machine"].items()) + ".")
    for protocol in chosen:
        rows = benchmark.rows(protocol, seed_list, [method for method in protocol.methods if method in methods])
        _print(console, benchmark.context(protocol, seed_list), rows)
        document["protocols"].append(benchmark.context(protocol, seed_list) | {"rows": [row.as_dict() for row in rows]})
    if json_path:
        json_path.write_text(json.dumps(document, indent=2) + "\n")


class _QualityBenchmark:
    """Measures methods on splits of the same ratings."""

    def __init__(self, folder: Path, cache: Path, movielens: MovieLens, models: ModelsConfig, history_length: int):
        self._folder, self._cache, self._models = folder, cache, models
        self._history_length = history_length
        self._content = content_hash(folder)
        self._results = Results(cache / "results")
        self._data = functools.cache(lambda protocol, seed: split_ratings(movielens, protocol.split_with(seed)))
        # The latest split and its transformed data; those of all splits would not fit into memory.
        self._latest_transformed: tuple[str, Transformed] | None = None

    def rows(self, protocol: Protocol, seeds: list[int], methods: list[str]) -> list[Row]:
        """The rows of the table: measured ones, then reported ones."""
        runs: dict[str, list[Run]] = {method: [] for method in methods}
        for seed in seeds:
            for method in methods:
                run = self._run(protocol, seed, method)
                runs[method].append(run)
        measured = [Row(METHODS[method].title, "measured", method_runs) for method, method_runs in runs.items()]
        return measured + [Row(title, "reported", [Run(dict(metrics))]) for title, metrics in protocol.reported.items()]

    def context(self, protocol: Protocol, seeds: list[int]) -> dict[str, Any]:
        """Describes the splits that the rows are measured on."""
        datasets = {seed: self._data(protocol, seed) for seed in seeds}
        return {
            "title": protocol.title,
            "split": protocol.split.model_dump(mode="json"),
            "history_length": self._history_length,
            "movies": datasets[seeds[0]].n_movies,
            "seeds": {seed: {"test": len(each.test), "hash": each.split_hash} for seed, each in datasets.items()},
        }

    def _run(self, protocol: Protocol, seed: int, method: str) -> Run:
        data = self._data(protocol, seed)

        def measure() -> Run:
            case = Case(data, lambda: self._load_transformed(protocol, seed), self._models, seed)
            result = METHODS[method].measure(case)
            subsets = {
                title: means(result.values, selected)
                for title, selected in protocol.subsets(result.users, data).items()
            }
            return Run(means(result.values), {"seed": seed, "settings": result.settings}, subsets)

        model = METHODS[method].model
        parts = {
            "split": protocol.split_with(seed).model_dump(mode="json"),
            "data": self._content,
            "method": method,
            "seed": seed,
            "hyperparameters": getattr(self._models, model).model_dump() if model else None,
            "history_length": self._history_length if model else None,
        }
        run, was_cached = self._results.get(parts, measure)
        metrics = " ".join(f"{name} {run.metrics[name]:.4f}" for name in _PROGRESS_METRICS if name in run.metrics)
        duration = "cached" if was_cached else f"{run.details['seconds']:.0f} s"
        line = f"{protocol.title}, seed {seed}: {method}, {metrics} ({duration})"
        _progress.print(line, markup=False, highlight=False, soft_wrap=True)
        return run

    def _load_transformed(self, protocol: Protocol, seed: int) -> "Transformed":
        # Imported here, because the simple methods need no TensorFlow.
        from benchmarks.transformed import load_transformed

        split = protocol.split_with(seed)
        if self._latest_transformed is None or self._latest_transformed[0] != split.model_dump_json():
            # Frees the memory of the previous split before the next one is loaded.
            self._latest_transformed = None
            result = load_transformed(
                *(self._folder, self._cache, split, lambda node: _progress.print(node, markup=False)),
                self._history_length,
            )
            self._latest_transformed = (split.model_dump_json(), result)
        return self._latest_transformed[1]


def _print(console: Console, context: dict[str, Any], rows: list[Row]) -> None:
    seeds = ", ".join(f"{seed} ({part['test']:,} test ratings)" for seed, part in context["seeds"].items())
    deviations = "; mean ± standard deviation" if len(context["seeds"]) > 1 else ""
    console.print()
    console.print(
        f"Split: {context['title']}; seeds {seeds}{deviations}. Ranks are among {context['movies']:,} movies."
    )
    subsets = dict.fromkeys(subset for row in rows for run in row.runs for subset in run.subsets)
    for title, group in {
        "": rows,
        **{f", {subset}": [row.for_subset(subset) for row in rows] for subset in subsets},
    }.items():
        for columns, heading in ((RETRIEVAL_COLUMNS, "retrieval"), (RATING_COLUMNS, "ratings")):
            lines = table(heading + title, columns, group)
            if lines.row_count:
                with console.capture() as capture:
                    console.print(lines)
                console.print()
                console.print(capture.get().strip())


if __name__ == "__main__":
    typer.run(main)
