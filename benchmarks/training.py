"""Measures how fast the project's and the notebooks' loops train: `python -m benchmarks.training --data DIR`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tensorflow as tf
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.dataset import split_ratings
from benchmarks.looks import record_recalls, seconds_to_recall
from benchmarks.loops import NOTEBOOK_LOOP_OPTIONS, PIPELINE_LOOP, TASKS, TrainingData, build, throughput
from benchmarks.notebooks import BATCH_SIZE
from benchmarks.options import CacheFolder, DataFolder, JsonPath, Overrides, Preset, parse_names
from benchmarks.report import machine
from benchmarks.roofline import Limits, measure_limits, step_cost, weight_count
from benchmarks.transformed import load_transformed
from components.data.raw_files import DataError, read_movielens
from components.ingestion.splits import SplitConfig
from pipeline.config import ConfigError, load_config
from trainers.hyperparameters import MAX_SEED, RetrievalHyperparameters

# Wide enough that no table wraps: a wrapped line would break a Markdown table.
_WIDTH = 400

_progress = Console(stderr=True)


def main(
    data: DataFolder,
    cache: CacheFolder = Path("output/benchmark-training"),
    seed: Annotated[int, typer.Option(help="Seed of the split and of the models.", min=0, max=MAX_SEED)] = 0,
    only: Annotated[
        str, typer.Option(help=f"Models to train, separated by commas; all are {', '.join(TASKS)}.")
    ] = ",".join(TASKS),
    config: Preset = "ml1m",
    overrides: Overrides = None,
    examples: Annotated[
        int, typer.Option(help="Number of ratings that each loop trains on in a round.", min=1)
    ] = 65_536,
    rounds: Annotated[
        int, typer.Option(help="Rounds in which the loops take turns, after a warm-up round.", min=1)
    ] = 5,
    batch_size: Annotated[int, typer.Option(help="Batch size of the notebooks' loops.", min=1)] = BATCH_SIZE,
    target: Annotated[
        list[float] | None,
        typer.Option(
            help="Filtered recall@10 on the eval split to measure the training time to, besides the notebooks' best. "
            "Repeatable; by default 0.1, a little more than EASE reaches."
        ),
    ] = None,
    part: Annotated[
        float, typer.Option(help="Share of the train ratings between two measurements of recall.", min=0.001, max=1)
    ] = 0.1,
    max_seconds: Annotated[
        float,
        typer.Option(
            help="Training time in seconds after which a loop stops trying for a target; 0 skips the targets.", min=0
        ),
    ] = 600,
    json_path: JsonPath = None,
) -> None:
    """Measures examples per second, seconds to a given recall, and the share of the machine's limits that is reached.

    The project's loop trains the project's retrieval and joint models. The notebooks' loop (`model.fit`) trains the
    notebooks' models, with top-k metrics over all movies computed in every step and without them. The models differ.
    """
    try:
        models = load_config(config, overrides).models
        tasks = {name: getattr(models, name).model_copy(update={"seed": seed}) for name in parse_names(only, TASKS)}
        split = SplitConfig(seed=seed)
        ratings = split_ratings(read_movielens(data), split)
        ready = load_transformed(data, cache, split, lambda node: _progress.print(node, markup=False))
    except (ConfigError, DataError) as error:
        _progress.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    training_data, limits = TrainingData(ready.splits, ratings), measure_limits()
    document: dict[str, Any] = {"machine": machine(), "limits": asdict(limits), "tasks": {}}
    for name, hparams in tasks.items():
        speeds = throughput(TASKS[name], training_data, hparams, examples, rounds, batch_size)
        result = {"config": hparams.model_dump(), "notebook": asdict(TASKS[name].notebook) | {"batch_size": batch_size}}
        model = build(TASKS[name], training_data.splits, hparams)
        # Keras creates the weights in the first call.
        model.compute_loss({name: tf.constant(values[:1]) for name, values in training_data.splits.train.items()})
        result |= _compare_speeds(speeds) | {"weights": weight_count(model)}
        # A window holds fewer rows or more, so that the operations of a step on windows cannot be read off its graph.
        if hparams.query == "pooled":
            result["roofline"] = _roofline(model, training_data, hparams, limits, speeds[PIPELINE_LOOP])
        _progress.print(f"{name}: examples a second {result['examples_per_second']}", markup=False)
        if max_seconds:
            recalls, best = record_recalls(
                TASKS[name], training_data, hparams, target or [0.1], part, max_seconds, batch_size
            )
            result["looks"] = {
                loop: [asdict(measurement) for measurement in measurements] for loop, measurements in recalls.items()
            }
            result["seconds_to"] = {
                level: {loop: seconds_to_recall(measurements, level) for loop, measurements in recalls.items()}
                for level in sorted({best, *(target or [0.1])})
            }
            _progress.print(f"{name}: seconds to a filtered recall@10 {result['seconds_to']}", markup=False)
        document["tasks"][name] = result
        tf.keras.backend.clear_session()
    _print(document)
    if json_path:
        json_path.write_text(json.dumps(document, indent=2) + "\n")


def _compare_speeds(speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Median speeds, and how many times as fast as each notebook loop the project's loop is in the same round."""
    ratios = {loop: np.divide(speeds[PIPELINE_LOOP], speeds[loop]) for loop in NOTEBOOK_LOOP_OPTIONS}
    return {
        "rounds": speeds,
        "examples_per_second": {loop: float(np.median(each)) for loop, each in speeds.items()},
        "times_as_fast": {
            loop: {"median": float(np.median(each)), "least": float(each.min()), "most": float(each.max())}
            for loop, each in ratios.items()
        },
    }


def _roofline(
    model: tf.keras.Model,
    training_data: TrainingData,
    hparams: RetrievalHyperparameters,
    limits: Limits,
    speeds: list[float],
) -> dict[str, float]:
    cost = step_cost(model, training_data.splits.train, hparams.batch_size)
    steps_per_second = float(np.median(speeds)) / hparams.batch_size
    achieved, roof = steps_per_second * cost.flops, limits.roof(cost.intensity)
    return {
        "flops": cost.flops,
        "bytes": cost.bytes,
        "intensity": cost.intensity,
        "seconds": 1 / steps_per_second,
        "achieved": achieved,
        "roof": roof,
        "share": achieved / roof,
    }


def _print(document: dict[str, Any]) -> None:
    console = Console(width=_WIDTH, highlight=False, markup=False)
    limits: dict[str, float] = document["limits"]
    console.print("Machine: " + ", ".join(f"{key} {value}" for key, value in document["machine"].items()) + ".")
    console.print(
        f"Limits: {limits['flops'] / 1e9:.1f} GFLOP/s in float32 matrix products, {limits['bandwidth'] / 1e9:.1f} GB/s."
    )
    for name, result in document["tasks"].items():
        config, notebook = result["config"], result["notebook"]
        console.print(
            f"\n{name}: the models are not alike. This pipeline's has {result['weights']:,} weights: "
            f"vectors of {config['embedding_dim']}, side information, a history of rated movies and a softmax over all "
            f"movies, in batches of {config['batch_size']:,}. The notebooks' has vectors of {notebook['dim']} for two "
            f"ids and a softmax over the batch, in batches of {notebook['batch_size']:,}."
        )
        if "roofline" not in result:
            console.print("How close it comes to the machine's limits is measured with query pooled alone.")
        for table in (_speed_table(name, result), _roofline_table(name, result), _quality_table(name, result)):
            if table.rows:
                with console.capture() as capture:
                    console.print(table)
                console.print()
                console.print(capture.get().strip())


def _speed_table(name: str, result: dict[str, Any]) -> Table:
    table = _table(
        f"{name}, rounds: {len(result['rounds'][PIPELINE_LOOP])}",
        *("examples/s", f"{PIPELINE_LOOP}: times as fast", "least", "most"),
    )
    for loop, speed in result["examples_per_second"].items():
        ratio = result["times_as_fast"].get(loop)
        compared = [f"{ratio[key]:.2f}" for key in ("median", "least", "most")] if ratio else []
        table.add_row(loop, f"{speed:,.0f}", *compared)
    return table


def _roofline_table(name: str, result: dict[str, Any]) -> Table:
    table = _table(
        *(f"{name}, a step", "ms", "GFLOP", "GB moved", "FLOP/byte", "GFLOP/s", "roof, GFLOP/s", "share of the roof")
    )
    step = result.get("roofline")
    if step is None:
        return table
    table.add_row(
        PIPELINE_LOOP,
        f"{1000 * step['seconds']:.0f}",
        *(f"{step[key] / 1e9:.2f}" for key in ("flops", "bytes")),
        f"{step['intensity']:.1f}",
        *(f"{step[key] / 1e9:.1f}" for key in ("achieved", "roof")),
        f"{step['share']:.0%}",
    )
    return table


def _quality_table(name: str, result: dict[str, Any]) -> Table:
    levels = result.get("seconds_to", {})
    table = _table(
        f"{name}, training", *(f"s to recall@10 {level:g}" for level in levels), "final recall@10", "s in all"
    )
    for loop, measurements in result.get("looks", {}).items():
        reached = [seconds[loop] for seconds in levels.values()]
        table.add_row(
            loop,
            *("-" if seconds is None else f"{seconds:.1f}" for seconds in reached),
            f"{measurements[-1]['recall']:.4f}",
            f"{measurements[-1]['seconds']:.1f}",
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.MARKDOWN)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    return table


if __name__ == "__main__":
    typer.run(main)
