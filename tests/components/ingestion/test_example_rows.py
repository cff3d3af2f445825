"""Shards hold whole users, and each serialized row holds a rating with its user, movie and history."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from components.data.raw_files import MovieLens
from components.ingestion.example_rows import MovieTable, encode, make_shards, with_splits
from components.ingestion.splits import TEST, TRAIN, Fractions, SplitConfig, Strategy

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


def rows(data: MovieLens, strategy: Strategy, length: int = 50, shard_rows: int = 100) -> list[list[dict[str, list]]]:
    """The decoded rows of train, eval and test."""
    table = MovieTable(data)
    found: list[list[dict[str, list]]] = [[], [], []]
    for shard in make_shards(data, SplitConfig(strategy=strategy), shard_rows):
        for part, columns in zip(found, shard.columns(table, length), strict=True):
            part.extend(decode(example) for example in encode(columns))
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
    shards = make_shards(movielens, SplitConfig(), shard_rows=2)
    assert [sorted(shard.users["user_id"]) for shard in shards] == [[3, 9], [BIG]]
    assert [len(shard.ratings) for shard in shards] == [5, 1]
    assert all((shard.ratings["split"] >= TRAIN).all() for shard in shards)


def test_ratings_of_earlier_spans_are_in_histories_but_are_not_written(movielens):
    config = SplitConfig(fractions=Fractions(train=0.98, eval=0.01, test=0.01))
    older = pd.DataFrame(
        [(9, 77, 1.0, 15, TRAIN), (9, 78, 1.0, 5, TEST), (9, 79, 2.0, 60, TRAIN), (4, 20, 3.0, 1, TRAIN)],
        columns=["user_id", "movie_id", "rating", "timestamp", "split"],
    ).astype({"rating": np.float32, "split": np.int8})
    shards = make_shards(movielens, config, shard_rows=100, earlier=older)
    found = [
        row
        for shard in shards
        for part in shard.columns(MovieTable(movielens), 50)
        for row in map(decode, encode(part))
    ]
    assert len(found) == len(movielens.ratings)
    histories = {(row["user_id"][0], row["movie_id"][0]): row.get("history_movie_ids", []) for row in found}
    assert histories == {
        (9, 40): [],
        (9, BIG): [40, 77],
        (9, 20): [40, 77, BIG],
        (9, 50): [40, 77, BIG, 20],
        (3, BIG): [],
        (BIG, 20): [],
    }


@pytest.mark.parametrize("strategy", [Strategy.RANDOM, Strategy.TEMPORAL, Strategy.TEMPORAL_ROLLING])
@pytest.mark.parametrize("seed", range(5))
def test_a_movie_that_was_rated_again_is_known_by_its_latest_rating_alone(movielens, strategy, seed):
    rng = np.random.default_rng(seed)
    users, ids = movielens.users["user_id"].to_numpy(), movielens.movies["movie_id"].to_numpy()
    pairs = pd.MultiIndex.from_product([users, ids]).to_frame(index=False, name=["user_id", "movie_id"])
    config = SplitConfig(strategy=strategy, fractions=Fractions(train=0.5, eval=0.2, test=0.3), seed=seed)
    spans = []
    for span in range(4):
        rated = pairs.sample(9, random_state=rng.integers(2**31))
        # Times of a span come after those of the one before; each rating differs from earlier ones of its pair.
        times = rng.permutation(9) + 100 * span
        stars = np.full(9, span + 1, np.float32)
        spans.append(with_splits(rated.assign(rating=stars, timestamp=times).reset_index(drop=True), config))
    *older, newest = spans
    data = dataclasses.replace(movielens, ratings=newest.drop(columns="split"))
    known = pd.concat(spans).drop_duplicates(["user_id", "movie_id"], keep="last")
    latest = known.set_index(["user_id", "movie_id"])["rating"].to_dict()

    written = 0
    for shard in make_shards(data, config, shard_rows=100, earlier=pd.concat(older, ignore_index=True)):
        for columns in shard.columns(MovieTable(data), 50):
            for row in map(decode, encode(columns)):
                (user,), (movie,) = row["user_id"], row["movie_id"]
                history = row.get("history_movie_ids", [])
                seen = row.get("seen_movie_ids", [])
                assert movie not in history
                assert len(set(history)) == len(history)
                assert len(set(seen)) == len(seen)
                given = row.get("history_ratings", [])
                assert given == [latest[user, other] for other in history]
                written += 1
    assert written == len(newest)
    assert len(known) < sum(map(len, spans))


def test_encoding_keeps_the_order_of_many_rows():
    numbers = pa.array([[i] if i % 3 else [] for i in range(5000)], pa.large_list(pa.int64()))
    decoded = [decode(example) for example in encode({"n": numbers})]
    assert decoded == [{"n": [i]} if i % 3 else {} for i in range(5000)]
