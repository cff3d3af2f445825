"""The benchmark's data are the pipeline's: same split, whole catalogue."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.dataset import Dataset, split_ratings
from components.data.raw_files import MovieLens
from components.ingestion.splits import EVAL, TEST, TRAIN, SplitConfig, Strategy, assign_splits


@pytest.fixture
def movielens() -> MovieLens:
    """Every user rates half of the movies; movie 900 is never rated; ids are in no order."""
    rng = np.random.default_rng(0)
    user_ids = rng.permutation(np.arange(5, 45))
    movie_ids = np.append(rng.permutation(np.arange(100, 160)), 900)
    users, movies = np.nonzero(rng.random((40, 60)) < 0.5)
    ratings = pd.DataFrame(
        {
            "user_id": user_ids[users],
            "movie_id": movie_ids[movies],
            "rating": rng.integers(1, 6, len(users)).astype(np.float32),
            "timestamp": rng.integers(0, 1000, len(users)),
        }
    )
    people = pd.DataFrame({"user_id": user_ids, "gender": ["F", "M"] * 20, "age": np.repeat([1, 25, 56, 18], 10)})
    return MovieLens(ratings, people, pd.DataFrame({"movie_id": movie_ids}), None)


def rows(data: Dataset, movielens: MovieLens, name: str) -> list[tuple[int, int, float]]:
    part = getattr(data, name)
    user_ids = movielens.users["user_id"].to_numpy()[part.users]
    movie_ids = movielens.movies["movie_id"].to_numpy()[part.movies]
    return list(zip(user_ids.tolist(), movie_ids.tolist(), part.stars.tolist(), strict=True))


def test_every_rating_is_in_the_pipelines_split_of_it(movielens):
    config = SplitConfig(seed=3)
    frame = movielens.ratings
    user_id, movie_id, timestamp = (frame[name].to_numpy() for name in ("user_id", "movie_id", "timestamp"))
    codes = assign_splits(user_id, movie_id, timestamp, config)

    data = split_ratings(movielens, config)

    for name, code in (("train", TRAIN), ("eval", EVAL), ("test", TEST)):
        expected = frame[codes == code][["user_id", "movie_id", "rating"]].itertuples(index=False, name=None)
        assert rows(data, movielens, name) == list(expected)
        assert len(getattr(data, name)) > 0


def test_the_whole_catalogue_is_ranked(movielens):
    data = split_ratings(movielens, SplitConfig())
    assert (data.n_users, data.n_movies) == (40, 61)
    seen = data.matrix(data.train)
    assert seen.shape == (40, 61)
    assert seen.sum() == len(data.train)


def test_people_of_the_same_gender_and_age_are_a_group(movielens):
    groups, people = split_ratings(movielens, SplitConfig()).groups, movielens.users
    alike = (people["gender"].to_numpy()[:, None] == people["gender"].to_numpy()) & (
        people["age"].to_numpy()[:, None] == people["age"].to_numpy()
    )
    np.testing.assert_array_equal(groups[:, None] == groups, alike)
    assert sorted(set(groups)) == list(range(8))


@pytest.mark.parametrize(
    ("strategy", "with_eval"),
    [("random", False), ("temporal", False), ("temporal_rolling", True), ("leave_last_out", True)],
)
def test_a_test_rating_is_predicted_from_what_its_row_knows(movielens, strategy, with_eval):
    data = split_ratings(movielens, SplitConfig(strategy=Strategy(strategy)))
    parts = rows(data, movielens, "train") + (rows(data, movielens, "eval") if with_eval else [])
    assert sorted(rows(data, movielens, "known")) == sorted(parts)


def test_filtered_metrics_leave_out_what_is_known_of_the_user_at_that_moment(movielens):
    frame = movielens.ratings
    times = dict(zip(zip(frame["user_id"], frame["movie_id"], strict=True), frame["timestamp"], strict=True))
    user_ids, movie_ids = movielens.users["user_id"].to_numpy(), movielens.movies["movie_id"].to_numpy()
    for strategy in Strategy:
        data = split_ratings(movielens, SplitConfig(strategy=strategy))
        assert data.test.seen is not None
        known = data.matrix(data.known).toarray()
        seen = np.split(data.test.seen.values, data.test.seen.offsets[1:-1])
        for user, movie, left_out in zip(data.test.users, data.test.movies, seen, strict=True):
            if strategy is Strategy.TEMPORAL_ROLLING:
                moments = [times[user_ids[user], movie_ids[other]] for other in left_out]
                assert all(moment <= times[user_ids[user], movie_ids[movie]] for moment in moments)
                assert set(left_out) >= set(np.flatnonzero(known[user]))
                assert movie not in left_out
            else:
                assert sorted(left_out) == np.flatnonzero(known[user]).tolist()


def test_the_hash_tells_splits_apart(movielens):
    hashes = [split_ratings(movielens, SplitConfig(seed=seed)).split_hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
