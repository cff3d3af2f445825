"""The split, history and seen movies of every row of MovieLens 1M equal those that pandas computes independently."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.data.raw_files import MovieLens, read_movielens
from components.ingestion.example_rows import WITHOUT_SPANS, Columns, MovieTable, make_shards
from components.ingestion.spans import Window
from components.ingestion.splits import SplitConfig, Strategy, with_splits
from tests.components.ingestion.examples_oracle import read_raw

pytestmark = [pytest.mark.ml1m, pytest.mark.timeout(600), pytest.mark.xdist_group("ml1m_columns")]

HISTORY_LENGTH = 50
SPLITS = ("train", "eval", "test")


@pytest.fixture(scope="module")
def movielens(ml1m_dir: Path) -> MovieLens:
    return read_movielens(ml1m_dir)


@pytest.fixture(scope="module")
def in_time(ml1m_dir: Path) -> pd.DataFrame:
    """The ratings of the file, sorted by user, time and line."""
    ratings = read_raw(ml1m_dir)["ratings"]
    ratings["line"] = np.arange(len(ratings))
    return ratings.sort_values(["user_id", "timestamp", "line"], ignore_index=True)


# Only the random split depends on the seed.
@pytest.mark.parametrize(
    ("strategy", "seed"),
    [
        *((each, 0) for each in Strategy),
        *(pytest.param(Strategy.RANDOM, seed, marks=pytest.mark.nightly) for seed in (1, 2)),
    ],
)
def test_columns_of_every_row_equal_those_of_pandas(movielens, in_time, strategy, seed):
    ratings = with_splits(movielens.ratings, SplitConfig(strategy=strategy, seed=seed)).assign(span=0)
    movies = MovieTable(movielens.movies, movielens.credits)
    parts: dict[str, list[Columns]] = {split: [] for split in SPLITS}
    for shard in make_shards(ratings, movielens.users, strategy, Window({0: Path()}, 0, ())):
        for part in WITHOUT_SPANS:
            parts[part.name].append(shard.columns(part, movies, HISTORY_LENGTH))
    rows = pd.concat([_keys(columns).assign(split=split) for split in SPLITS for columns in parts[split]])
    # No pair of user and movie is in two splits or twice in one, and every rating is in a split.
    assert not rows.duplicated(["user_id", "movie_id"]).any()
    expected = in_time.merge(rows, on=["user_id", "movie_id"], validate="one_to_one")
    assert len(expected) == len(rows) == 1_000_209
    pd.testing.assert_frame_equal(expected[in_time.columns], in_time)
    if strategy is Strategy.LEAVE_LAST_OUT:
        assert_last_two_are_held_out(expected)
    elif strategy.cuts_time:
        assert_splits_follow_in_time(expected)
    shares = expected["split"].value_counts(normalize=True)
    if strategy is not Strategy.LEAVE_LAST_OUT:
        assert shares[list(SPLITS)].to_numpy() == pytest.approx([0.73, 0.02, 0.25], abs=0.002)
    for split in SPLITS:
        known = ["train"]
        if strategy is Strategy.LEAVE_LAST_OUT and split == "test":
            known = ["train", "eval"]
        elif strategy is Strategy.TEMPORAL_ROLLING and split != "train":
            known = list(SPLITS)
        is_rolling = strategy is Strategy.TEMPORAL_ROLLING
        assert_lists(expected, parts[split], known, None if split == "train" else "before" if is_rolling else "of_user")


def assert_last_two_are_held_out(ratings: pd.DataFrame) -> None:
    from_last = ratings.groupby("user_id").cumcount(ascending=False)
    assert (ratings["split"] == from_last.map({0: "test", 1: "eval"}).fillna("train")).all()


def assert_splits_follow_in_time(ratings: pd.DataFrame) -> None:
    order = ratings.sort_values(["timestamp", "line"])["split"].map(dict(zip(SPLITS, range(3), strict=True)))
    assert order.is_monotonic_increasing


def assert_lists(ratings: pd.DataFrame, parts: list[Columns], known: list[str], seen: str | None) -> None:
    """Checks that histories hold the latest known ratings before each row, and the seen movies all that `seen` says.

    Args:
      ratings: all ratings, sorted by user, time and line, with the column `split`.
      parts: the columns of the rows of one split, one part per shard.
      known: the splits whose ratings these rows may know.
      seen: which known ratings of the user give the seen movies: "before" for those before the row, "of_user" for all;
        None if the rows have no seen movies.
    """
    is_known = ratings["split"].isin(known).astype(int)
    # The number of the user's known ratings before each rating, which is also a known rating's place among them.
    before = is_known.groupby(ratings["user_id"]).cumsum() - is_known
    of_user = is_known.groupby(ratings["user_id"]).transform("sum")
    table = pd.DataFrame({"before": before, "of_user": of_user, "is_known": is_known == 1, "rating": ratings["rating"]})
    table["timestamp"] = ratings["timestamp"]
    table.index = pd.Index(_pairs(ratings["user_id"], ratings["movie_id"]))
    for columns in parts:
        keys = _keys(columns)
        rows = table.loc[_pairs(keys["user_id"], keys["movie_id"])]
        lengths = rows["before"].clip(upper=HISTORY_LENGTH).to_numpy()
        first = rows["before"].to_numpy() - lengths
        found = _assert_places(columns["history_movie_ids"], keys, table, first, lengths)
        np.testing.assert_array_equal(columns["history_ratings"].flatten().to_numpy(), found["rating"])
        np.testing.assert_array_equal(columns["history_ratings"].value_lengths().to_numpy(), lengths)
        np.testing.assert_array_equal(columns["history_timestamps"].flatten().to_numpy(), found["timestamp"])
        np.testing.assert_array_equal(columns["place"].flatten().to_numpy(), rows["before"])
        if seen:
            _assert_places(columns["seen_movie_ids"], keys, table, 0 * first, rows[seen].to_numpy())


def _assert_places(lists, keys: pd.DataFrame, table: pd.DataFrame, first: np.ndarray, lengths: np.ndarray):
    """Checks that list i holds the known ratings `first[i]`, `first[i] + 1`, ... of its user, and returns them."""
    np.testing.assert_array_equal(lists.value_lengths().to_numpy(), lengths)
    row = np.repeat(np.arange(len(keys)), lengths)
    place = pd.Series(row).groupby(row).cumcount().to_numpy() + first[row]
    pairs = _pairs(keys["user_id"].to_numpy()[row], lists.flatten().to_numpy())
    found = table.iloc[table.index.get_indexer(pd.Index(pairs))]
    assert found["is_known"].all()
    np.testing.assert_array_equal(found["before"], place)
    return found


def _keys(columns: Columns) -> pd.DataFrame:
    return pd.DataFrame({name: columns[name].flatten().to_numpy() for name in ("user_id", "movie_id")})


def _pairs(user_id, movie_id) -> np.ndarray:
    """A different integer for each pair; the movie ids of MovieLens 1M are below 4,000."""
    return np.asarray(user_id) * 4_000 + np.asarray(movie_id)
