"""Shards hold whole users, and each serialized row holds a rating with its user, movie and history."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from components.data.raw_files import MovieLens
from components.ingestion.example_rows import (
    NEWEST,
    PAST,
    PREVIOUS,
    TEST_PART,
    TRAIN_PART,
    WITHOUT_SPANS,
    MovieTable,
    Shard,
    encode,
    make_shards,
)
from components.ingestion.spans import Window
from components.ingestion.splits import TEST, TRAIN, SplitConfig, Strategy, with_splits

import tensorflow as tf  # isort: skip

BIG = 2**62 + 1


@pytest.fixture
def movielens() -> MovieLens:
    """User 9 comes first in the file; user 3 has one rating; ids may be large; movie 40 is unknown to the credits."""
    ratings = pd.DataFrame(
        [(9, 40, 5, 10), (3, BIG, 1, 5), (9, BIG, 2, 20), (9, 20, 4, 30), (BIG, 20, 3, 40), (9, 50, 3, 50)],
        columns=["user_id", "movie_id", "rating", "timestamp"],
    ).astype({"rating": np.float32})
    users = pd.DataFrame(
        {
            "user_id": [BIG, 9, 3],
            "gender": ["F", "M", "F"],
            "age": [1, 56, 25],
            "occupation": [0, 20, 7],
            "zip_code": ["00231", "98107-2117", "H2X"],
        }
    )
    movies = pd.DataFrame(
        {
            "movie_id": [20, 40, 50, BIG],
            "title": ["A (1990)", "Misérables, Les (1995)", "C (2000)", "D (1919)"],
            "release_year": [1990, 1995, 2000, 1919],
            "genres": [["Drama"], ["Drama", "Musical"], ["War"], ["Comedy"]],
        }
    )
    credits_ = pd.DataFrame(
        {"movie_id": [50, 20, BIG], "director": ["X", None, "Ÿ"], "star": ["S", "T", None]}, dtype=object
    ).astype({"movie_id": np.int64})
    return MovieLens(ratings, users, movies, credits_)


def decode(serialized: bytes) -> dict[str, list]:
    """The features of an example; one without a kind counts as missing, as it does for tf.io.parse_example."""
    features = tf.train.Example.FromString(serialized).features.feature
    kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
    return {name: list(getattr(features[name], kind).value) for name, kind in kinds.items() if kind is not None}


WINDOW = Window({0: Path()}, 0, ())


def shards_of(data: MovieLens, config: SplitConfig, shard_rows: int = 100) -> list[Shard]:
    ratings = with_splits(data.ratings, config).assign(span=0)
    return make_shards(ratings, data.users, config.strategy, WINDOW, shard_rows)


def rows(data: MovieLens, strategy: Strategy, length: int = 50, shard_rows: int = 100) -> list[list[dict[str, list]]]:
    """The decoded rows of train, eval and test."""
    table = MovieTable(data.movies, data.credits)
    found: list[list[dict[str, list]]] = [[], [], []]
    for shard in shards_of(data, SplitConfig(strategy=strategy), shard_rows):
        for of_part, part in zip(found, WITHOUT_SPANS, strict=True):
            of_part.extend(decode(example) for example in encode(shard.columns(part, table, length)))
    return found


def test_a_row_holds_user_movie_rating_and_history(movielens):
    train, eval_, test = rows(movielens, Strategy.LEAVE_LAST_OUT)
    assert [row["movie_id"] for row in train] == [[BIG], [40], [BIG], [20]]
    assert test == [
        {
            "user_id": [9],
            "gender": [b"M"],
            "age": [56],
            "occupation": [20],
            "zip_code": [b"98107-2117"],
            "movie_id": [50],
            "title": [b"C (2000)"],
            "release_year": [2000],
            "genres": [b"War"],
            "director": [b"X"],
            "star": [b"S"],
            "rating": [3.0],
            "timestamp": [50],
            "history_movie_ids": [40, BIG, 20],
            "history_ratings": [5.0, 2.0, 4.0],
            "history_timestamps": [10, 20, 30],
            "place": [3],
            "seen_movie_ids": [40, BIG, 20],
        }
    ]
    assert [(row["movie_id"], row["history_movie_ids"]) for row in eval_] == [([20], [40, BIG])]


def test_unknown_values_are_missing_features(movielens):
    train, eval_, _ = rows(movielens, Strategy.LEAVE_LAST_OUT)
    first = train[1]
    assert first["title"] == ["Misérables, Les (1995)".encode()]
    assert first["genres"] == [b"Drama", b"Musical"]
    assert not {"director", "star", "history_movie_ids", "history_ratings", "seen_movie_ids"} & set(first)
    assert "director" not in eval_[0]
    assert eval_[0]["star"] == [b"T"]


def test_without_credits_no_row_has_a_director_or_star(movielens):
    data = MovieLens(movielens.ratings, movielens.users, movielens.movies, None)
    assert all(not {"director", "star"} & set(row) for part in rows(data, Strategy.TEMPORAL) for row in part)


def test_histories_are_cut_to_the_latest_movies(movielens):
    _, _, test = rows(movielens, Strategy.LEAVE_LAST_OUT, length=1)
    assert test[0]["history_movie_ids"] == [20]
    assert test[0]["seen_movie_ids"] == [40, BIG, 20]
    assert "history_movie_ids" not in rows(movielens, Strategy.LEAVE_LAST_OUT, length=0)[2][0]


@pytest.mark.parametrize("strategy", Strategy)
def test_the_size_of_shards_does_not_change_the_rows(movielens, strategy):
    whole = rows(movielens, strategy)
    assert rows(movielens, strategy, shard_rows=1) == whole
    assert sum(map(len, whole)) == len(movielens.ratings)


def test_all_rows_of_a_user_are_in_one_shard(movielens):
    shards = shards_of(movielens, SplitConfig(), shard_rows=2)
    assert [sorted(shard.users["user_id"]) for shard in shards] == [[3, 9], [BIG]]
    assert [len(shard.ratings) for shard in shards] == [5, 1]
    assert all((shard.ratings["split"] >= TRAIN).all() for shard in shards)


def test_train_ratings_of_earlier_spans_are_in_histories_and_all_are_of_the_past(movielens):
    older = pd.DataFrame(
        [(9, 20, 1.0, 15, TRAIN), (9, 50, 1.0, 5, TEST), (3, 40, 2.0, 60, TRAIN)],
        columns=["user_id", "movie_id", "rating", "timestamp", "split"],
    ).astype({"rating": np.float32, "split": np.int8})
    newer = movielens.ratings[~movielens.ratings["movie_id"].isin([20, 50])].assign(split=np.int8(TRAIN))
    ratings = pd.concat([older.assign(span=1), newer.assign(span=2)], ignore_index=True)
    window = Window({1: Path("1"), 2: Path("2")}, 2, ())
    table = MovieTable(movielens.movies, movielens.credits)

    def found(part):
        shards = make_shards(ratings, movielens.users, Strategy.RANDOM, window)
        return [decode(example) for shard in shards for example in encode(shard.columns(part, table, 50))]

    histories = {(row["user_id"][0], row["movie_id"][0]): row.get("history_movie_ids", []) for row in found(TRAIN_PART)}
    assert histories == {(9, 40): [], (9, BIG): [40, 20], (3, BIG): []}
    assert found(TEST_PART) == []
    past = found(PAST)
    assert {(row["user_id"][0], row["movie_id"][0]) for row in past} == {(9, 20), (9, 50), (3, 40)}
    assert not any("history_movie_ids" in row for row in past)
    compared = [{(row["user_id"][0], row["movie_id"][0]) for row in found(part)} for part in (NEWEST, PREVIOUS)]
    assert compared == [set(histories), {(9, 20), (3, 40)}]


def test_encoding_keeps_the_order_of_many_rows():
    numbers = pa.array([[i] if i % 3 else [] for i in range(5000)], pa.large_list(pa.int64()))
    decoded = [decode(example) for example in encode({"n": numbers})]
    assert decoded == [{"n": [i]} if i % 3 else {} for i in range(5000)]
