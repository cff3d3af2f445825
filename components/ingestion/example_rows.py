"""Turns MovieLens tables into tf.Examples: joins ratings with their user, movie and history, column by column.

Ratings are cut into shards; a shard holds all ratings of its users. Histories repeat every rating up to
`history_length` times, so they are made only by the worker that writes the shard, and the shard itself stays small.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.data.raw_files import MovieLens
from components.ingestion.histories import Ragged, Timeline, is_known
from components.ingestion.splits import EVAL, TEST, TRAIN, SplitConfig, Strategy, assign_splits

SHARD_ROWS = 32_768
_BATCH_ROWS = 1024
_TEXT_LISTS = pa.large_list(pa.large_binary())

# Features by name; each row of a feature is a list of zero, one or several values.
Columns = dict[str, pa.LargeListArray]


class MovieTable:
    """The features of all movies, for lookup by movie_id."""

    def __init__(self, data: MovieLens):
        """Takes the movies and, if there are credits, their directors and stars."""
        movies = data.movies
        self._rows = pd.Index(movies["movie_id"])
        self._columns: Columns = {
            "movie_id": _single_values(movies["movie_id"]),
            "title": _single_values(movies["title"]),
            "release_year": _single_values(movies["release_year"]),
            "genres": _text_lists(movies["genres"].tolist()),
        }
        if data.credits is not None:
            credits_ = data.credits.set_index("movie_id").reindex(movies["movie_id"])
            for name in ("director", "star"):
                self._columns[name] = _text_lists(
                    [[text] if isinstance(text, str) else None for text in credits_[name]]
                )

    def all(self) -> Columns:
        """Returns the features of every movie, in file order."""
        return self._columns

    def of(self, movie_id: pd.Series) -> Columns:
        """Features of these movies: movie_id, title, release_year, genres and, with credits, director and star."""
        rows = pa.array(self._rows.get_indexer(pd.Index(movie_id)))
        return {name: column.take(rows) for name, column in self._columns.items()}


@dataclass(frozen=True)
class Shard:
    """A group of users with all their ratings.

    Attributes:
      ratings: the columns of `MovieLens.ratings` with `split` (int8) and `is_new` (bool; False for ratings of earlier
        spans, which are used for histories but not written as rows); each user's ratings are in file order.
      users: as in `MovieLens.users`.
      strategy: how ratings were split.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    strategy: Strategy

    def columns(self, movies: MovieTable, history_length: int) -> Iterator[Columns]:
        """Yields the features of the train, the eval and the test ratings, each sorted by user and time.

        Args:
          movies: the catalogue.
          history_length: largest number of movies in a history.
        """
        codes, is_new = self.ratings["split"].to_numpy(), self.ratings["is_new"].to_numpy()
        user_id, timestamp = self.ratings["user_id"].to_numpy(), self.ratings["timestamp"].to_numpy()
        movie_id, stars = self.ratings["movie_id"].to_numpy(), self.ratings["rating"].to_numpy()
        user_rows = pd.Index(self.users["user_id"])
        for code in (TRAIN, EVAL, TEST):
            timeline = Timeline.of(user_id, timestamp, is_known(codes, code, self.strategy))
            places = np.flatnonzero((is_new & (codes == code))[timeline.order])
            ratings = self.ratings.iloc[timeline.order[places]]
            users = self.users.iloc[user_rows.get_indexer(pd.Index(ratings["user_id"]))]
            history = timeline.histories(history_length, places)
            columns = {
                **{name: _single_values(users[name]) for name in users.columns},
                **movies.of(ratings["movie_id"]),
                "rating": _single_values(ratings["rating"]),
                "timestamp": _single_values(ratings["timestamp"]),
                "history_movie_ids": _gather_lists(history, movie_id),
                "history_ratings": _gather_lists(history, stars),
            }
            if code != TRAIN:
                columns["seen_movie_ids"] = _gather_lists(timeline.seen(places, self.strategy), movie_id)
            yield columns


def with_splits(ratings: pd.DataFrame, split: SplitConfig) -> pd.DataFrame:
    """Adds the int8 column `split` to ratings in file order."""
    user_id, movie_id, timestamp = (ratings[name].to_numpy() for name in ("user_id", "movie_id", "timestamp"))
    return ratings.assign(split=assign_splits(user_id, movie_id, timestamp, split))


def make_shards(
    data: MovieLens, split: SplitConfig, shard_rows: int = SHARD_ROWS, earlier: pd.DataFrame | None = None
) -> list[Shard]:
    """Divides ratings into splits, and users into shards of at least `shard_rows` ratings (except the last shard).

    Args:
      data: the data set whose ratings are written as rows.
      split: how ratings are divided.
      shard_rows: smallest number of ratings in a shard.
      earlier: ratings of earlier spans from `with_splits`, oldest span first; histories and seen movies may hold them,
        unless their movie was rated again.
    """
    ratings = with_splits(data.ratings, split).assign(is_new=True)
    if earlier is not None:
        is_of_user = earlier["user_id"].isin(ratings["user_id"])
        ratings = pd.concat([earlier[is_of_user].assign(is_new=False), ratings], ignore_index=True)
        # Of a movie that somebody rated again, the later rating counts, in histories and seen movies alike.
        ratings = ratings.drop_duplicates(["user_id", "movie_id"], keep="last", ignore_index=True)
    by_user = ratings.iloc[np.argsort(ratings["user_id"].to_numpy(), kind="stable")]
    return [
        Shard(rows, data.users[data.users["user_id"].isin(rows["user_id"].unique())], split.strategy)
        for rows in _cut_between_users(by_user, by_user["user_id"].to_numpy(), shard_rows)
    ]


def _cut_between_users(by_user: pd.DataFrame, user_id: np.ndarray, shard_rows: int) -> Iterator[pd.DataFrame]:
    start = 0
    while start < len(user_id):
        last = user_id[min(start + shard_rows, len(user_id)) - 1]
        end = int(np.searchsorted(user_id, last, side="right"))
        yield by_user.iloc[start:end]
        start = end


def encode(columns: Columns) -> Iterator[bytes]:
    """Serializes rows as tf.Examples; an empty list becomes a feature without a kind, which parses as missing.

    The same rows give equal messages, but not always equal bytes, because protobuf writes features in any order.
    """
    encoder = RecordBatchToExamplesEncoder()
    # The encoder would turn an empty list into a list without values, which counts as a present feature; hence null.
    table = pa.RecordBatch.from_arrays([_null_if_empty(column) for column in columns.values()], list(columns))
    for start in range(0, table.num_rows, _BATCH_ROWS):
        yield from encoder.encode(table.slice(start, _BATCH_ROWS))


def _null_if_empty(column: pa.LargeListArray) -> pa.Array:
    is_empty = pc.fill_null(pc.equal(pc.list_value_length(column), 0), True)
    if not pc.any(is_empty).as_py():
        return column
    return pc.if_else(is_empty, pa.scalar(None, column.type), column)


def _single_values(values: pd.Series) -> pa.LargeListArray:
    """Makes one list per value."""
    array = pa.array(values.to_numpy())
    if pa.types.is_string(array.type):
        array = array.cast(pa.large_binary())
    return pa.LargeListArray.from_arrays(pa.array(np.arange(len(values) + 1)), array)


def _gather_lists(rows: Ragged, values: np.ndarray) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(rows.offsets), pa.array(values[rows.values]))


def _text_lists(lists: list[list[str] | None]) -> pa.LargeListArray:
    return pa.array(lists, pa.large_list(pa.large_string())).cast(_TEXT_LISTS)
