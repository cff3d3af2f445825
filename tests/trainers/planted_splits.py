"""Generated ratings as a trainer reads them: the columns that Transform would make, without Beam."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import tensorflow_transform as tft

from components.data.planted import draw_world
from components.data.sample import draw_ratings
from trainers.datasets import Arrays, Splits
from transform.features import vocabulary_name


def planted_splits(users: int, movies: int, ratings: int, seed: int, eval_share: float = 0.1) -> Splits:
    """The crossed features and the label, for trainers that read no history; rows are divided at random."""
    world = draw_world(users, movies, seed)
    user, movie, stars, _ = draw_ratings(world, ratings, seed).T
    zip_codes = np.unique([code[:3] for code in world.zip_codes], return_inverse=True)[1]
    of_users = {"user_id": np.arange(users), "gender": world.gender, "age": world.age, "occupation": world.occupation}
    of_users |= {"zip_code": zip_codes}
    of_movies = {"movie_id": np.arange(movies), "director": world.director, "star": world.star}
    columns = {f"{name}_xf": (values[user] + 1).astype(np.int32) for name, values in of_users.items()}
    columns |= {f"{name}_xf": (values[movie] + 1).astype(np.int32) for name, values in of_movies.items()}
    padded = np.pad(world.genres, [(0, 0), (1, 1)])
    columns |= {"genres_xf": padded[movie].astype(np.int32), "rating_xf": stars.astype(np.float32)}
    sizes = {vocabulary_name(name): int(values.max()) + 1 for name, values in (of_users | of_movies).items()}
    transform = SimpleNamespace(vocabulary_size_by_name=sizes.__getitem__)
    held_out = np.random.default_rng(seed).random(ratings) < eval_share
    return Splits(
        train={name: values[~held_out] for name, values in columns.items()},
        eval={name: values[held_out] for name, values in columns.items()},
        movies={"movie_id_xf": np.arange(1, movies + 1, dtype=np.int32)},
        transform=cast(tft.TFTransformOutput, transform),
    )


def with_history(splits: Splits, length: int) -> Splits:
    """The same for trainers that read histories, which are drawn at random, and a catalogue."""
    rng = np.random.default_rng(0)
    train = _with_history(splits.train, splits.movie_size, length, rng)
    movies, first = np.unique(train["movie_id_xf"], return_index=True)
    catalogue = {name: train[name][first] for name in ("movie_id_xf", "genres_xf", "director_xf", "star_xf")}
    catalogue["movie_id_frequency_xf"] = np.bincount(train["movie_id_xf"])[movies].astype(np.float32)
    held_out = _with_history(splits.eval, splits.movie_size, length, rng)
    return replace(splits, train=train, eval=held_out, movies=catalogue)


def _with_history(arrays: Arrays, movie_size: int, length: int, rng: np.random.Generator) -> Arrays:
    shape = (len(arrays["rating_xf"]), length)
    history = rng.integers(0, movie_size - 1, shape).astype(np.int32)
    ratings = (rng.integers(1, 6, shape) * (history > 0)).astype(np.float32)
    return arrays | {"history_movie_ids_xf": history, "history_ratings_xf": ratings}
