"""Measures the recommender's list once more, in NumPy: `python -m benchmarks.lists --output DIR`.

The recommender's own graph judges the lists that the Evaluator averages. Here, the same rows are judged by another
program: it asks the exported retriever for scores and the exported rating model for the ratings of single pairs, and
does everything else in NumPy.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from tfx.utils import path_utils

from benchmarks.report import machine
from components.recommender.second_stage import MIDDLE
from components.recommender.stored_data import records
from pipeline.paths import local_path
from trainers.datasets import Arrays, with_int32_indices
from transform.features import LABEL, MOVIE_ID, SEEN_MOVIES, USER_ID, Role, columns, transformed_name

_BATCH = 100
_LIKED_FROM = 4


def main(
    output: Annotated[
        Path, typer.Option(help="Output folder of a run that pushed a recommender.", metavar="DIR", parser=local_path)
    ],
    rows: Annotated[int, typer.Option(min=1, help="Number of test rows.")] = 10_000,
) -> None:
    """Judges the lists of test rows with the recommender's graph and in NumPy, and prints both as a Markdown table.

    Exits with 1 if a figure differs by more than a millionth.
    """
    console = Console(width=200, highlight=False)
    console.print("Machine: " + ", ".join(f"{key} {value}" for key, value in machine().items()) + ".")
    run = _Run(output)
    judged: list[Arrays] = []
    counted: list[Arrays] = []
    for examples in records(run.examples, "test", _BATCH).take(-(-rows // _BATCH)):
        evaluated = run.recommender.signatures["evaluate"](examples)
        judged.append({name: values.numpy() for name, values in evaluated.items()})
        counted.append(run.judge(examples))
    graph, numpy = (
        {name: np.concatenate([part[name] for part in parts])[:rows].astype(np.float64) for name in parts[0]}
        for parts in (judged, counted)
    )
    table = Table("over all rows, and liked ones", "Evaluator's graph", "", "NumPy", "", box=box.MARKDOWN)
    largest = 0.0
    for name, values in numpy.items():
        own = _means(values, numpy["is_liked"])
        of_graph = _means(graph[name], graph["is_liked"]) if name in graph else None
        largest = max([largest, *(np.abs(np.subtract(own, of_graph)) if of_graph else [])])
        table.add_row(
            name,
            *(f"{mean:.7f}" for mean in of_graph or ()),
            *([] if of_graph else ["", ""]),
            *(f"{mean:.7f}" for mean in own),
        )
    console.print(table)
    console.print(f"Largest difference: {largest:.1e}, over {len(numpy['is_liked'])} test rows.")
    if largest > 1e-6:
        raise typer.Exit(1)


class _Run:
    """The artifacts of a run, and the judge of their lists.

    Attributes:
      examples: folder of the raw examples.
      recommender: the pushed recommender.
    """

    def __init__(self, output: Path):
        summary = json.loads((output / "summary.json").read_text())
        if not summary["recommender"]["pushed"]:
            raise typer.BadParameter(f"{output} should be of a run that pushed a recommender.")
        artifacts = output / "pipeline"
        self.examples = _newest(artifacts / "MovieLensExampleGen" / "examples")
        self.recommender = tf.saved_model.load(summary["recommender"]["pushed"])
        made_of = summary["recommender"]["made_of"]
        uris = [made_of["parts"][part][1] for part in ("retrieval", "ranking")]
        # Kept, because their functions read variables that would be gone with them.
        self._parts = parts = [tf.saved_model.load(path_utils.serving_model_path(uri)) for uri in uris]
        graph = made_of["transform_graph"] or _newest(artifacts / "Transform" / "transform_graph")
        transform = tft.TFTransformOutput(graph)
        self._spec, self._layer = transform.raw_feature_spec(), transform.transform_features_layer()
        self._read_histories, self._scores, self._ratings = parts[0].read_histories, parts[0].scores, parts[1].ratings
        self._heads = parts[0].heads[0], parts[1].heads[-1]
        self._ids = parts[0].heads[0].raw_ids.numpy()
        self._popularity = parts[0].heads[0].popularity.numpy()
        self._is_candidate = parts[0].catalogue.candidates.numpy() & np.isin(self._ids, self._catalogue())
        self._bias = parts[1].heads[-1].biases.movies.numpy()
        self._user_count = len(parts[1].heads[-1].biases.users.numpy())
        # Those for people whom training never saw, and those for others.
        self._weights = self.recommender.weights.numpy().astype(np.float64)
        self._candidates = int(self.recommender.candidates)
        self._movies = self._movie_features()

    def judge(self, examples: tf.Tensor) -> Arrays:
        """The metrics of each row: float [rows] by the names of the recommender's signature `evaluate`."""
        raw = tf.io.parse_example(examples, self._spec)
        features = {name: values.numpy() for name, values in with_int32_indices(self._layer(raw)).items()}
        person = {
            column.name: features[column.name]
            for column in columns(Role.USER, Role.CONTEXT, Role.HISTORY, among=features)
        }
        told = {name: tf.constant(values) for name, values in person.items()}
        scores = self._scores(told | self._read_histories(told))["scores"].numpy()
        seen = tf.sparse.to_dense(raw[SEEN_MOVIES]).numpy()
        targets, stars = features[transformed_name(MOVIE_ID)], features[transformed_name(LABEL)]
        values: dict[str, list[float]] = {}
        for row, target in enumerate(targets):
            unseen = ~np.isin(self._ids, seen[row][seen[row] > 0]) & self._is_candidate
            candidates = np.argsort(-np.where(unseen, scores[row], -np.inf), kind="stable")[: self._candidates]
            candidates = candidates[unseen[candidates]]
            rated = self._rate({name: values[row] for name, values in person.items()}, candidates) - MIDDLE
            known = np.stack([np.log1p(self._popularity[candidates]), self._bias[candidates]], axis=1)
            of_models = np.stack([scores[row][candidates], rated, rated**2], axis=1)
            is_known = 0 < person[transformed_name(USER_ID)][row] < self._user_count - 1
            values_of_candidates = np.concatenate([of_models, known], axis=1) @ self._weights[int(is_known)]
            order = np.argsort(-values_of_candidates, kind="stable")
            popular = (
                np.count_nonzero(self._popularity[unseen] >= self._popularity[target]) if unseen[target] else np.inf
            )
            for prefix, rank in (
                ("", _place(candidates[order], target)),
                ("retrieval_", _place(candidates, target)),
                ("rating_", _place(candidates[np.argsort(-rated, kind="stable")], target)),
                ("popularity_", popular),
            ):
                for k in (5, 10):
                    values.setdefault(f"{prefix}recall_at_{k}", []).append(float(rank <= k))
                values.setdefault(f"{prefix}ndcg_at_10", []).append(1 / np.log2(1 + rank) if rank <= 10 else 0.0)
            values.setdefault("is_liked", []).append(float(stars[row] >= _LIKED_FROM))
        return {name: np.array(each) for name, each in values.items()}

    def _rate(self, person: Arrays, candidates: np.ndarray) -> np.ndarray:
        """The person's predicted ratings of movies, one pair a row."""
        pairs = {name: np.repeat(value[np.newaxis], len(candidates), axis=0) for name, value in person.items()}
        pairs |= {name: values[candidates] for name, values in self._movies.items()}
        return self._ratings({name: tf.constant(values) for name, values in pairs.items()}).numpy().astype(np.float64)

    def _catalogue(self) -> np.ndarray:
        """The ids of the movies that there are: int64 [movies]."""
        spec = {MOVIE_ID: tf.io.FixedLenFeature([], tf.int64)}
        return np.concatenate(
            [tf.io.parse_example(rows, spec)[MOVIE_ID].numpy() for rows in records(self.examples, "movies")]
        )

    def _movie_features(self) -> Arrays:
        """The transformed features of all movies, by movie index."""
        table: Arrays = {}
        for examples in records(self.examples, "movies"):
            features = with_int32_indices(self._layer(tf.io.parse_example(examples, self._spec)))
            index = features[transformed_name(MOVIE_ID)].numpy()
            for column in columns(Role.MOVIE, among=features):
                values = features[column.name].numpy()
                rows = table.setdefault(column.name, np.zeros((len(self._ids), *values.shape[1:]), values.dtype))
                rows[index] = values
        return table


def _means(values: np.ndarray, liked: np.ndarray) -> list[float]:
    """The means over all rows and over those of 4 and 5 stars."""
    return [float(values.mean()), float(values[liked > 0].mean())]


def _place(movies: np.ndarray, target: int) -> float:
    places = np.flatnonzero(movies == target)
    return float(places[0] + 1) if len(places) else np.inf


def _newest(folder: Path) -> str:
    return str(max(folder.iterdir(), key=lambda path: int(path.name)))


if __name__ == "__main__":
    typer.run(main)
