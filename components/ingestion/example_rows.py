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

from components.ingestion.histories import Ragged, Timeline, is_known
from components.ingestion.spans import Window
from components.ingestion.splits import EVAL, TEST, TRAIN, Strategy

SHARD_ROWS = 32_768
_BATCH_ROWS = 1024
_TEXT_LISTS = pa.large_list(pa.large_binary())

# Features by name; each row of a feature is a list of zero, one or several values.
Columns = dict[str, pa.LargeListArray]


class MovieTable:
    """The features of all movies, for lookup by movie_id."""

    def __init__(self, movies: pd.DataFrame, credits_: pd.DataFrame | None):
        """Takes movies and, if there are any, the credits with their directors and stars, as in `MovieLens`."""
        self._rows = pd.Index(movies["movie_id"])
        self._columns: Columns = {
            "movie_id": _single_values(movies["movie_id"]),
            "title": _single_values(movies["title"]),
            "release_year": _single_values(movies["release_year"]),
            "genres": _text_lists(movies["genres"].tolist()),
        }
        if credits_ is not None:
            of_movies = credits_.set_index("movie_id").reindex(movies["movie_id"])
            for name in ("director", "star"):
                self._columns[name] = _text_lists(
                    [[text] if isinstance(text, str) else None for text in of_movies[name]]
                )

    def of(self, movie_id: pd.Series | np.ndarray) -> Columns:
        """Features of these movies: movie_id, title, release_year, genres and, with credits, director and star."""
        rows = pa.array(self._rows.get_indexer(pd.Index(movie_id)))
        return {name: column.take(rows) for name, column in self._columns.items()}


@dataclass(frozen=True)
class Part:
    """One of the parts into which ratings are written as rows, a split of the artifact.

    Attributes:
      name: its name.
      code: which ratings a row's history and seen movies may hold, as `histories.is_known` has it.
      has_history: whether its rows have a history.
      has_seen: whether they have the movies that the user had seen.
    """

    name: str
    code: int
    has_history: bool = True
    has_seen: bool = False


TRAIN_PART = Part("train", TRAIN)
EVAL_PART = Part("eval", EVAL, has_seen=True)
TEST_PART = Part("test", TEST, has_seen=True)
# Ratings that no model is trained or measured on, but the recommender knows: those of spans before the window, and the
# test ratings of its earlier spans.
PAST = Part("past", TRAIN, has_history=False)
# Train ratings of the newest span and of the one before, once more, so that their statistics can be compared.
NEWEST, PREVIOUS = Part("newest", TRAIN), Part("previous", TRAIN)

WITHOUT_SPANS = (TRAIN_PART, EVAL_PART, TEST_PART)
WITH_SPANS = (*WITHOUT_SPANS, PAST, NEWEST, PREVIOUS)


def is_in(part: Part, split: np.ndarray, span: np.ndarray, window: Window) -> np.ndarray:
    """Whether ratings belong to a part: bool [ratings].

    Args:
      part: the part.
      split: int8 [ratings].
      span: int64 [ratings].
      window: the spans.
    """
    in_window, is_newest = span >= window.first, span == window.newest
    if part == PAST:
        return ~in_window | (~is_newest & (split == TEST))
    if part == TEST_PART:
        return is_newest & (split == TEST)
    if part in (NEWEST, PREVIOUS):
        return (span == (window.newest if part == NEWEST else window.previous)) & (split == TRAIN)
    return in_window & (split == part.code)


@dataclass(frozen=True)
class Shard:
    """A group of users with all their ratings.

    Attributes:
      ratings: the columns of `spans.Ratings.table`; each user's ratings are in its order.
      users: as in `MovieLens.users`.
      strategy: how ratings were split.
      window: the spans.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    strategy: Strategy
    window: Window

    def columns(self, part: Part, movies: MovieTable, history_length: int) -> Columns:
        """The features of the ratings of a part, sorted by user and time.

        Args:
          part: the part.
          movies: the features of all movies.
          history_length: largest number of movies in a history.
        """
        codes, span = self.ratings["split"].to_numpy(), self.ratings["span"].to_numpy()
        user_id, timestamp = self.ratings["user_id"].to_numpy(), self.ratings["timestamp"].to_numpy()
        movie_id, stars = self.ratings["movie_id"].to_numpy(), self.ratings["rating"].to_numpy()
        timeline = Timeline.of(user_id, timestamp, is_known(codes, part.code, self.strategy))
        places = np.flatnonzero(is_in(part, codes, span, self.window)[timeline.order])
        ratings = self.ratings.iloc[timeline.order[places]]
        users = self.users.iloc[pd.Index(self.users["user_id"]).get_indexer(pd.Index(ratings["user_id"]))]
        columns = {
            **{name: _single_values(users[name]) for name in users.columns},
            **movies.of(ratings["movie_id"]),
            "rating": _single_values(ratings["rating"]),
            "timestamp": _single_values(ratings["timestamp"]),
        }
        if part.has_history:
            history = timeline.histories(history_length, places)
            columns["history_movie_ids"] = _gather_lists(history, movie_id)
            columns["history_ratings"] = _gather_lists(history, stars)
            columns["history_timestamps"] = _gather_lists(history, timestamp)
            columns["place"] = _single_values(pd.Series(timeline.known_before(places)))
        if part.has_seen:
            columns["seen_movie_ids"] = _gather_lists(timeline.seen(places, self.strategy), movie_id)
        return columns


def make_shards(
    ratings: pd.DataFrame, users: pd.DataFrame, strategy: Strategy, window: Window, shard_rows: int = SHARD_ROWS
) -> list[Shard]:
    """Divides users into shards of at least `shard_rows` ratings (except the last shard).

    Args:
      ratings: as in `spans.Ratings.table`.
      users: as in `MovieLens.users`.
      strategy: how ratings were split.
      window: the spans.
      shard_rows: smallest number of ratings in a shard.
    """
    by_user = ratings.iloc[np.argsort(ratings["user_id"].to_numpy(), kind="stable")]
    return [
        Shard(rows, users[users["user_id"].isin(rows["user_id"].unique())], strategy, window)
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
