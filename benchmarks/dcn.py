"""Compares deep & cross networks with a deep network of the same size: `python -m benchmarks.dcn --data DIR`.

The networks, their training and their features are the pipeline's own. Stars are predicted on the pipeline's random
75/25 split (2 of the 75 % for early stopping), likes on a random 8:1:1 split, as in published results.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.metrics import like_metrics, rating_metrics
from benchmarks.models import train
from benchmarks.options import CacheFolder, DataFolder, JsonPath, Overrides, Preset, Seeds, parse_names, parse_seeds
from benchmarks.report import LIKE_COLUMNS, RATING_COLUMNS, Row, Run, machine, table
from benchmarks.reported import LIKES
from benchmarks.transformed import Transformed, load_transformed
from components.data.raw_files import DataError
from components.ingestion.splits import Fractions, SplitConfig
from pipeline.config import ConfigError, load_config
from trainers.baselines import BiasModel, LikeBiases
from trainers.datasets import Arrays, predictor
from trainers.dcn import SPECS, spec
from trainers.hyperparameters import DCNHyperparameters, Task
from trainers.likes import is_decided, is_liked
from transform.features import LABEL, MOVIE_ID, USER_ID, transformed_name

RATING, LIKE = "rating", "like"
FRACTIONS = {RATING: Fractions(), LIKE: Fractions(train=0.8, eval=0.1, test=0.1)}
COLUMNS = {RATING: RATING_COLUMNS, LIKE: LIKE_COLUMNS}

_BIASES, _DEEP, _FACTORS, _EXPERTS = "biases", "deep", "factors", "experts"

# A network without other experts beside it.
_ALONE: dict[str, Any] = {"factor_dim": 0, "second_structure": None}

# The settings of the configuration that each method replaces.
METHODS: dict[str, dict[str, Any]] = {
    "stacked": {"structure": "stacked", "projection_dim": None} | _ALONE,
    "parallel": {"structure": "parallel", "projection_dim": None} | _ALONE,
    "low-rank": {"structure": "stacked"} | _ALONE,
    _DEEP: {"structure": "deep", "projection_dim": None} | _ALONE,
    _FACTORS: {"structure": "parallel", "projection_dim": None, "second_structure": None},
    _EXPERTS: {"structure": "parallel", "projection_dim": None, "second_structure": "stacked"},
}
TITLES = {
    _BIASES: "user + movie bias",
    "stacked": "DCN, stacked",
    "parallel": "DCN, parallel",
    "low-rank": "DCN, stacked, low-rank",
    _DEEP: "DNN with as many weights",
    _FACTORS: "DCN, parallel, and a factor model",
    _EXPERTS: "DCN, parallel and stacked, and a factor model",
}

_WIDTH = 400

_progress = Console(stderr=True)


def main(
    data: DataFolder,
    cache: CacheFolder = Path("output/benchmark-dcn"),
    seeds: Seeds = "0,1,2",
    objectives: Annotated[str, typer.Option(help="What to predict, separated by commas.")] = f"{RATING},{LIKE}",
    only: Annotated[
        str,
        typer.Option(
            help=f"Networks to measure, separated by commas; all are {', '.join(METHODS)}. The last two need "
            "models.dcn.factor_dim, as with --set."
        ),
    ] = f"stacked,parallel,low-rank,{_DEEP}",
    config: Preset = "ml1m",
    overrides: Overrides = None,
    rank: Annotated[int, typer.Option(help="Rank of the low-rank cross weights.", min=1)] = 64,
    rating_penalties: Annotated[
        str,
        typer.Option(
            help="Values of table_l2 for ratings, separated by commas; each network uses the best on eval. If none, "
            "the configured value."
        ),
    ] = "",
    like_penalties: Annotated[str, typer.Option(help="The same for likes.")] = "",
    json_path: JsonPath = None,
) -> None:
    """Trains each network on each seed, and measures it on the test split.

    The eval split decides the number of epochs and, among several penalties, the penalty; the test split is used once.
    """
    seed_list = parse_seeds(seeds)
    methods, chosen_objectives = parse_names(only, METHODS), parse_names(objectives, COLUMNS)
    try:
        hparams = load_config(config, overrides).models.dcn
        if with_factors := [method for method in methods if method in (_FACTORS, _EXPERTS) and not hparams.factor_dim]:
            raise ConfigError(
                f"models.dcn.factor_dim should be at least 1 to measure {' and '.join(with_factors)}; received 0."
            )
        penalties = {RATING: _parse_penalties(rating_penalties), LIKE: _parse_penalties(like_penalties)}
        rows = {
            objective: _measure_all(
                objective,
                methods,
                seed_list,
                [hparams.model_copy(update={"table_l2": value}) for value in penalties[objective]] or [hparams],
                rank,
                data,
                cache,
            )
            for objective in chosen_objectives
        }
    except (ConfigError, DataError) as error:
        _progress.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    context: dict[str, Any] = {"machine": machine(), "config": hparams.model_dump(), "seeds": seed_list}
    console = Console(width=_WIDTH, highlight=False, markup=False)
    console.print("Machine: " + ", ".join(f"{key} {value}" for key, value in context["machine"].items()) + ".")
    for objective in chosen_objectives:
        _print(console, objective, rows[objective])
    if json_path:
        document = context | {name: [row.as_dict() for row in measured.values()] for name, measured in rows.items()}
        json_path.write_text(json.dumps(document, indent=2) + "\n")


def _parse_penalties(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise typer.BadParameter(f"should be numbers, as in 0.01,0.03; received {text!r}.") from None


def _measure_all(
    objective: str,
    methods: list[str],
    seeds: list[int],
    candidates: list[DCNHyperparameters],
    rank: int,
    data: Path,
    cache: Path,
) -> dict[str, Row]:
    """Measures all methods; returns their rows by method, with the biases first and published results last."""
    runs: dict[str, list[Run]] = {name: [] for name in (_BIASES, *methods)}
    for seed in seeds:
        split = SplitConfig(seed=seed, fractions=FRACTIONS[objective])
        ready = load_transformed(data, cache, split, lambda node: _progress.print(node, markup=False))
        runs[_BIASES].append(Run(_measure_biases(objective, ready), {"seed": seed}))
        for method in methods:
            changes = {"objective": objective, "seed": seed, **METHODS[method]}
            if method == "low-rank":
                changes["projection_dim"] = rank
            run = _measure_best(ready, [each.model_copy(update=changes) for each in candidates])
            _progress.print(f"{objective}, seed {seed}, {method}: {run.metrics} {run.details}", markup=False)
            runs[method].append(run)
    rows = {name: Row(TITLES[name], "measured", method_runs) for name, method_runs in runs.items()}
    if objective == LIKE:
        rows |= {title: Row(title, "reported", [Run(dict(metrics))]) for title, metrics in LIKES.items()}
    return rows


def _measure_biases(objective: str, ready: Transformed) -> dict[str, float]:
    rows = _rows_with_target(objective, ready.test)
    users, movies = rows[transformed_name(USER_ID)], rows[transformed_name(MOVIE_ID)]
    splits = SPECS[Task(objective)].rows(ready.splits)
    if objective == RATING:
        return rating_metrics(BiasModel.of(splits).predict(users, movies), rows[transformed_name(LABEL)])
    return like_metrics(LikeBiases.of(splits).total(users, movies), is_liked(rows[transformed_name(LABEL)]))


def _measure_best(ready: Transformed, candidates: list[DCNHyperparameters]) -> Run:
    """Trains a network with each candidate, and measures the one that is best on eval on the test split."""
    trained = [(train(spec(each), each, ready.splits), each) for each in candidates]
    best, hparams = min(trained, key=lambda pair: pair[0].value)
    rows = _rows_with_target(hparams.objective, ready.test)
    stars = rows[transformed_name(LABEL)]
    predicted = predictor(best.model.predicted)(rows)
    metrics = rating_metrics(predicted, stars) if hparams.objective == RATING else None
    details = {
        "seed": hparams.seed,
        "eval": best.value,
        "table_l2": hparams.table_l2,
        "weights": sum(int(np.prod(weight.shape)) for weight in best.model.trainable_weights),
        "seconds": round(best.seconds, 1),
    }
    return Run(metrics or like_metrics(predicted, is_liked(stars)), details)


def _rows_with_target(objective: str, rows: Arrays) -> Arrays:
    """The rows that the objective is defined for: for likes, only those whose stars are a like or a dislike."""
    if objective == RATING:
        return rows
    decided = is_decided(rows[transformed_name(LABEL)])
    return {name: values[decided] for name, values in rows.items()}


def _print(console: Console, objective: str, rows: dict[str, Row]) -> None:
    shares = ", ".join(f"{name} {share:g}" for name, share in FRACTIONS[objective].model_dump().items())
    title = f"{objective}: random, {shares}"
    with console.capture() as capture:
        console.print(table(title, COLUMNS[objective], rows.values()))
    console.print()
    console.print(capture.get().strip())
    metric = {RATING: "rmse", LIKE: "log_loss"}[objective]
    for method in (
        name for name in rows if name in METHODS and name not in (_DEEP, _FACTORS, _EXPERTS) and _DEEP in rows
    ):
        pairs = zip(rows[method].runs, rows[_DEEP].runs, strict=True)
        wins = [run.metrics[metric] < deep_run.metrics[metric] for run, deep_run in pairs]
        console.print(f"{rows[method].title} beats the {rows[_DEEP].title} on {sum(wins)} of {len(wins)} seeds.")


if __name__ == "__main__":
    typer.run(main)
