"""Runs the pipeline night after night, as data arrive: `python -m benchmarks.spans --data DIR --output DIR`.

The ratings are cut by time into spans of the same number of ratings. Each night one span more is delivered, with
everybody and every movie, and `movielens run` is called as a user would. What each night did is written to
OUTPUT/nights.json at once, so that a run that was stopped goes on with the night after it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tensorflow as tf
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.options import DataFolder, Overrides, Preset
from benchmarks.report import machine
from components.data.raw_files import CREDITS_FILE, MOVIES_FILE, RATINGS_FILE, USERS_FILE
from components.storage.paths import write_whole
from pipeline.paths import artifact_path
from trainers.registry import MODELS, RECOMMENDER

_COMMAND = "import sys; from pipeline.cli import main; sys.exit(main())"
_FIGURES = {
    ("dcn", "rmse"): "dcn RMSE",
    ("ranking", "rmse"): "ranking RMSE",
    ("joint", "rmse"): "joint RMSE",
    ("retrieval", "recall_at_10_filtered"): "retrieval recall@10",
    ("joint", "recall_at_10_filtered"): "joint recall@10",
    (RECOMMENDER, "recall_at_10"): "list recall@10",
    (RECOMMENDER, "liked_recall_at_10"): "list liked recall@10",
    (RECOMMENDER, "liked_ndcg_at_10"): "list liked NDCG@10",
}
_BASELINES = {("retrieval", "recall_at_10_filtered"): "popularity recall@10", ("dcn", "rmse"): "biases RMSE"}

Night = dict[str, Any]


def main(
    data: DataFolder,
    output: Annotated[
        Path, typer.Option(help="Folder for spans, outputs and results.", metavar="DIR", parser=artifact_path)
    ],
    spans: Annotated[int, typer.Option(min=1, help="Number of spans.")] = 8,
    window: Annotated[int, typer.Option(min=1, help="Number of the newest spans that models are trained on.")] = 4,
    config: Preset = "ml1m",
    settings: Overrides = None,
) -> None:
    """Delivers a data set span by span, runs the pipeline after each, and prints what was measured, in Markdown.

    Exits with 1 if a run ended otherwise than with 0, or if a recommender does not know everybody who had rated.
    """
    console = Console(width=500, highlight=False)
    console.print("Machine: " + ", ".join(f"{key} {value}" for key, value in machine().items()) + ".")
    output.mkdir(parents=True, exist_ok=True)
    results = output / "nights.json"
    nights: list[Night] = json.loads(results.read_text()) if results.exists() else []
    parts = cut(data, spans)
    options = [f"data.spans={window}", *(settings or [])]
    how = {"spans": spans, "config": config, "settings": options}
    if any(night["how"] != how for night in nights):
        raise typer.BadParameter(
            f"{results} is of nights with {nights[0]['how']}; received {how}. Take another folder."
        )
    for number in range(len(nights) + 1, spans + 1):
        deliver(data, parts[number - 1], output / "data" / f"span-{number}")
        console.print(f"Night {number} of {spans}: {len(parts[number - 1])} new ratings …")
        nights.append(_night(output, parts[:number], config, options, nights) | {"how": how})
        write_whole(results, json.dumps(nights, indent=1))
    for table in (_figures(nights), _champions(nights)):
        console.print()
        console.print(table)
    if any(night["exit"] or night["people_known"] < night["people_who_rated"] for night in nights):
        raise typer.Exit(1)


def cut(data: Path, spans: int) -> list[list[str]]:
    """The lines of ratings.dat, by time, in as many parts of the same size; those of one second stay in file order."""
    lines = (data / RATINGS_FILE).read_text().splitlines()
    times = np.array([int(line.rpartition("::")[2]) for line in lines])
    return [[lines[place] for place in part] for part in np.array_split(np.argsort(times, kind="stable"), spans)]


def deliver(data: Path, ratings: Sequence[str], span: Path) -> None:
    """Writes a span: its ratings, and the other files as they are in the data set."""
    span.mkdir(parents=True, exist_ok=True)
    for name in (USERS_FILE, MOVIES_FILE, CREDITS_FILE):
        if (data / name).exists():
            (span / name).write_bytes((data / name).read_bytes())
    (span / RATINGS_FILE).write_text("".join(f"{line}\n" for line in ratings))


def _night(
    output: Path, parts: Sequence[Sequence[str]], config: str, settings: list[str], nights: list[Night]
) -> Night:
    """One run, and what came of it."""
    start = time.monotonic()
    command = [sys.executable, "-c", _COMMAND, "run", "--config", config, "--data", str(output / "data")]
    command += ["--output", str(output / "runs"), *(option for each in settings for option in ("--set", each))]
    exit_code = subprocess.run(command, check=False).returncode
    if exit_code not in (0, 3):
        typer.echo(f"The run ended with {exit_code}; nothing of it was recorded.", err=True)
        raise typer.Exit(1)
    summary = json.loads((output / "runs" / "summary.json").read_text())
    entries = summary["models"] | {RECOMMENDER: summary[RECOMMENDER]}
    artifacts = output / "runs" / "pipeline"
    made = {name: _newest(artifacts / f"Trainer.{name}" / "model") for name in MODELS}
    if "metrics" in summary[RECOMMENDER]:
        made[RECOMMENDER] = _newest(artifacts / "RecommenderBuilder" / RECOMMENDER)
    earlier = {place: number for number, night in enumerate(nights, start=1) for place in night["made"].values()}
    rated = pd.DataFrame(
        [line.split("::")[:2] for part in parts for line in part], columns=["user", "movie"]
    ).drop_duplicates()
    movies_of = rated.astype(int).groupby("user")["movie"].size().sort_index()
    return {
        "exit": exit_code,
        "minutes": (time.monotonic() - start) / 60,
        "made": made,
        "entries": entries,
        "champions": {
            name: earlier.get(str(champion["uri"]), champion["why"])
            for name, entry in entries.items()
            if (champion := entry.get("champion"))
        },
        "people_who_rated": len(movies_of),
        "people_known": _people_known(Path(made[RECOMMENDER]), movies_of.to_numpy()) if RECOMMENDER in made else 0,
    }


def _people_known(model: Path, movies_of: np.ndarray) -> int:
    """How many people a recommender knows together with all movies that they rated.

    Args:
      model: the artifact; its SavedModel numbers people by their ids.
      movies_of: int64 [people], the number of movies that each of them rated, by their ids.
    """
    offsets = tf.saved_model.load(str(model / "Format-Serving")).seen_offsets.numpy()
    # The first row is that of people whom it does not know.
    known = np.diff(offsets)[1:]
    return int((known == movies_of).sum()) if len(known) == len(movies_of) else 0


def _newest(folder: Path) -> str:
    return str(max(folder.iterdir(), key=lambda path: int(path.name)))


def _figures(nights: Sequence[Night]) -> Table:
    """What the Evaluator measured on the test ratings of each night's newest span."""
    table = Table("night", *_BASELINES.values(), *_FIGURES.values(), "people known", "min", box=box.MARKDOWN)
    for number, night in enumerate(nights, start=1):
        entries = night["entries"]
        table.add_row(
            str(number),
            *(_cell(entries[name].get("baseline"), metric) for name, metric in _BASELINES),
            *(_cell(entries[name].get("metrics"), metric) for name, metric in _FIGURES),
            f"{night['people_known']} of {night['people_who_rated']}",
            f"{night['minutes']:.0f}",
        )
    return table


def _cell(metrics: dict[str, float | None] | None, name: str) -> str:
    value = (metrics or {}).get(name)
    return "" if value is None else f"{value:.4f}"


def _champions(nights: Sequence[Night]) -> Table:
    """Which champion each night's models met, and how it ended."""
    table = Table("night", "exit code", *MODELS, RECOMMENDER, box=box.MARKDOWN)
    for number, night in enumerate(nights, start=1):
        cells = []
        for name, entry in night["entries"].items():
            champion = night["champions"].get(name, "it was not evaluated")
            met = f"that of night {champion}" if isinstance(champion, int) else f"none, because {champion}"
            verdicts = {each["verdict"] for each in entry.get("against_champion", {}).values()}
            cells.append("; ".join([met, *sorted(verdicts), "pushed" if entry["pushed"] else "refused"]))
        table.add_row(str(number), str(night["exit"]), *cells)
    return table


if __name__ == "__main__":
    typer.run(main)
