"""Generated ratings as splits that a trainer reads, with the columns that Transform would make, but without Beam."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_transform as tft

from components.data.planted import draw_world
from components.data.sample import draw_ratings
from trainers.datasets import Arrays, Splits
from transform.features import vocabulary_name

HISTORY = 4  # Number of movies in a history.


class PlantedTransform:
    """A stand-in for TFTransformOutput: vocabularies, and a graph that sets every feature but the user to 1."""

    def __init__(self, keys: dict[str, list[str]]):
        self.keys = {vocabulary_name(name): [key.encode() for key in words] for name, words in keys.items()}
        self._folder = tempfile.TemporaryDirectory()

    def vocabulary_by_name(self, name: str) -> list[bytes]:
        return self.keys[name]

    def vocabulary_size_by_name(self, name: str) -> int:
        return len(self.keys[name])

    def raw_feature_spec(self) -> dict[str, Any]:
        return {name: tf.io.VarLenFeature(tf.int64) for name in ("user_id_xf", "seen_movie_ids", "timestamp")}

    def transform_features_layer(self) -> tf.Module:
        layer = _ConstantColumns()
        for name, words in self.keys.items():
            path = Path(self._folder.name) / name
            path.write_bytes(b"".join(word + b"\n" for word in words))
            layer.vocabularies.append(tf.saved_model.Asset(str(path)))
        return layer


class _ConstantColumns(tf.Module):
    def __init__(self):
        super().__init__()
        self.vocabularies = []

    def __call__(self, raw: dict[str, Any]) -> dict[str, tf.Tensor]:
        users = tf.reshape(tf.sparse.to_dense(raw["user_id_xf"]), [-1])
        one = tf.ones_like(users)
        rows = {"user_id_xf": users, "rating_xf": tf.cast(one, tf.float32)}
        rows |= {"genres_xf": tf.tile(one[:, tf.newaxis], [1, 20])}
        rows |= {"history_movie_ids_xf": tf.tile(one[:, tf.newaxis], [1, HISTORY])}
        rows |= {"history_ratings_xf": tf.tile(tf.cast(one, tf.float32)[:, tf.newaxis], [1, HISTORY])}
        rows |= {"history_timestamps_xf": rows["history_movie_ids_xf"], "timestamp_seconds_xf": one}
        categories = ("gender", "age", "occupation", "zip_code", "movie_id", "director", "star")
        return rows | {f"{name}_xf": one for name in categories}


def planted_splits(users: int, movies: int, ratings: int, seed: int, eval_share: float = 0.1) -> Splits:
    """Makes splits, drawn at random, with the crossed features and the label, for models that need no history."""
    world = draw_world(users, movies, seed)
    user, movie, stars, _ = draw_ratings(world, ratings, seed).T
    zip_codes = np.unique([code[:3] for code in world.zip_codes], return_inverse=True)[1]
    user_columns = {
        "user_id": np.arange(users),
        "gender": world.gender,
        "age": world.age,
        "occupation": world.occupation,
    }
    user_columns |= {"zip_code": zip_codes}
    movie_columns = {"movie_id": np.arange(movies), "director": world.director, "star": world.star}
    columns = {f"{name}_xf": (values[user] + 1).astype(np.int32) for name, values in user_columns.items()}
    columns |= {f"{name}_xf": (values[movie] + 1).astype(np.int32) for name, values in movie_columns.items()}
    padded = np.pad(world.genres, [(0, 0), (1, 1)])
    columns |= {"genres_xf": padded[movie].astype(np.int32), "rating_xf": stars.astype(np.float32)}
    sizes = {name: int(values.max()) + 1 for name, values in (user_columns | movie_columns).items()}
    sizes["genres"] = world.genres.shape[1]
    transform = PlantedTransform({name: [str(key) for key in range(1, size + 1)] for name, size in sizes.items()})
    held_out = np.random.default_rng(seed).random(ratings) < eval_share
    return Splits(
        train={name: values[~held_out] for name, values in columns.items()},
        eval={name: values[held_out] for name, values in columns.items()},
        movies={"movie_id_xf": np.arange(1, movies + 1, dtype=np.int32)},
        transform=cast(tft.TFTransformOutput, transform),
    )


def with_history(splits: Splits, length: int = HISTORY) -> Splits:
    """Adds histories drawn at random and a catalogue of the movies in train, so that every model can be trained.

    Places number the rows of each user, so that windows hold many rows of one person.
    """
    rng = np.random.default_rng(0)
    movies, first = np.unique(splits.train["movie_id_xf"], return_index=True)

    def history(users: np.ndarray) -> Arrays:
        rows = len(users)
        drawn = rng.integers(0, len(movies), (rows, length)).astype(np.int32)
        ratings = (rng.integers(1, 6, (rows, length)) * (drawn > 0)).astype(np.float32)
        times = np.sort(rng.integers(1, 10**8, (rows, length)), axis=1)[:, ::-1] * (drawn > 0)
        return {
            "history_movie_ids_xf": drawn,
            "history_ratings_xf": ratings,
            "history_timestamps_xf": times.astype(np.int32),
            "timestamp_seconds_xf": rng.integers(10**8, 2 * 10**8, rows).astype(np.int32),
            "place_xf": pd.Series(users).groupby(users).cumcount().to_numpy(np.int32),
        }

    catalogue = {name: splits.train[name][first] for name in ("movie_id_xf", "genres_xf", "director_xf", "star_xf")}
    catalogue["movie_id_frequency_xf"] = np.bincount(splits.train["movie_id_xf"])[movies].astype(np.float32)
    return dataclasses.replace(
        splits,
        train=splits.train | history(splits.train["user_id_xf"]),
        eval=splits.eval | history(splits.eval["user_id_xf"]),
        movies=catalogue,
    )
