"""What the recommender knows of movies and people, read from raw examples."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from trainers.datasets import with_int32_indices, without_autotuning
from transform import moments
from transform.features import (
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    HISTORY_TIMES,
    LABEL,
    MOVIE_ID,
    PLACE,
    TIMESTAMP,
    USER_ID,
    Kind,
    Role,
    columns,
    transformed_name,
)

Arrays = dict[str, np.ndarray]

_SECONDS = transformed_name(TIMESTAMP, Kind.SECONDS)

RATING_SPLITS = ("train", "eval", "test", "past")  # Without spans there are no ratings of the past.
_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Movies:
    """The movies that a model knows, by movie index; indices that are no movie, such as 0, have id 0.

    Attributes:
      ids: int64 [movie indices].
      titles: bytes [movie indices]; empty for a movie that has left the catalogue.
      candidates: bool [movie indices], whether a movie can be recommended: the catalogue has it, and the model had it
        among its candidates when it was trained. Others are in histories only.
    """

    ids: np.ndarray
    titles: np.ndarray
    candidates: np.ndarray

    @property
    def count(self) -> int:
        """Number of movies that can be recommended."""
        return int(np.count_nonzero(self.candidates))


@dataclass(frozen=True)
class Users:
    """What is known of each user; row 0 stands for an unknown user.

    Attributes:
      ids: int64 [users], 0 in row 0.
      features: transformed features of the roles user, context and history, [users, ...] by name, as of the user's
        latest rating, but for its second.
      latest: int64 [users], the time of the user's latest rating in seconds since 1970; 0 in row 0.
      seen_offsets: int64 [users + 1]; row u has seen `seen_movies[seen_offsets[u]:seen_offsets[u + 1]]`.
      seen_movies: int32 [rated pairs], movie indices.
    """

    ids: np.ndarray
    features: Arrays
    latest: np.ndarray
    seen_offsets: np.ndarray
    seen_movies: np.ndarray

    def seen_by(self, row: int) -> np.ndarray:
        """The movie indices that a user has seen."""
        return self.seen_movies[self.seen_offsets[row] : self.seen_offsets[row + 1]]


def records(uri: str, split: str, batch_rows: int = _BATCH_ROWS) -> tf.data.Dataset:
    """Serialized raw examples of a split, string [up to batch_rows], of a folder of examples."""
    files = sorted(tf.io.gfile.glob(os.path.join(uri, f"Split-{split}", "*.gz")))
    # With a number of parallel reads, even of 1, another thread hands over record by record, which takes longer.
    return without_autotuning(
        tf.data.TFRecordDataset(tf.constant(files, tf.string), compression_type="GZIP").batch(batch_rows)
    )


def read_movies(uri: str, ids: np.ndarray, candidates: np.ndarray) -> Movies:
    """Reads the catalogue: titles, which trained models do without, and which movies there are.

    Args:
      uri: folder of raw examples.
      ids: int64 [movie indices], as in `Movies`.
      candidates: bool [movie indices], the movies that the model had among its candidates when it was trained.

    Raises:
      ValueError: none of these is in the catalogue.
    """
    spec = {MOVIE_ID: tf.io.FixedLenFeature([], tf.int64), "title": tf.io.FixedLenFeature([], tf.string)}
    raw = _concatenate(_parse(rows, spec) for rows in records(uri, "movies"))
    known = np.isin(raw[MOVIE_ID], ids)
    titles = np.full(len(ids), b"", object)
    titles[_positions(ids, raw[MOVIE_ID][known])] = raw["title"][known]
    movies = Movies(ids, titles, candidates & (ids > 0) & np.isin(ids, raw[MOVIE_ID]))
    if not movies.count:
        raise ValueError(f"The catalogue should have movies that the retriever knows; none of {len(raw[MOVIE_ID])} is.")
    return movies


def read_users(
    uri: str, transform: tft.TFTransformOutput, movies: Movies, splits: Sequence[str] = RATING_SPLITS
) -> Users:
    """Returns all users who rated movies that the model knows, with these movies as their history and as seen.

    Args:
      uri: folder of raw examples.
      transform: the Transform output of the model, which need not be that of these examples.
      movies: the movies that the model knows.
      splits: the splits whose ratings are known.
    """
    ratings, latest_rows = _read_ratings(uri, splits)
    # The model may not know movies of spans before its window, nor those that are newer than it is.
    is_known = np.isin(ratings[MOVIE_ID], movies.ids)
    order = np.lexsort((ratings[PLACE], ratings[TIMESTAMP], ratings[USER_ID]))
    ratings = {name: values[order][is_known[order]] for name, values in ratings.items()}
    ids, counts = np.unique(ratings[USER_ID], return_counts=True)
    seen = _positions(movies.ids, ratings[MOVIE_ID]).astype(np.int32)
    # Row 0, an unknown user, has seen nothing.
    offsets = np.concatenate([[0, 0], np.cumsum(counts)])

    features = _transformed([latest_rows[int(user)][1] for user in ids], transform)
    features = {name: np.concatenate([np.zeros_like(value[:1]), value]) for name, value in features.items()}
    length = features[transformed_name(HISTORY_MOVIES)].shape[1]
    times = moments.seconds(tf.constant(ratings[TIMESTAMP])).numpy()
    stored = _latest_ratings(seen, ratings[LABEL], times, offsets, length)
    # Transform graphs of earlier versions know no times of histories.
    features |= {name: values for name, values in stored.items() if name in features}
    # Whoever asks without telling the moment does not ask in the second of the latest rating.
    features |= {name: np.zeros_like(features[name]) for name in {_SECONDS} & features.keys()}
    latest = np.array([0, *(latest_rows[int(user)][0] for user in ids)], np.int64)
    return Users(np.concatenate([[0], ids]), features, latest, offsets, seen)


def _read_ratings(uri: str, splits: Sequence[str]) -> tuple[Arrays, dict[int, tuple[int, bytes]]]:
    """All ratings, column by column; and the time and the example of each user's latest rating.

    `PLACE` becomes a key that orders a user's ratings of one second: of train ratings, and of others among them, as the
    files did; of others between the same two train ratings, and of those of the past, as they are read.
    """
    spec = {
        USER_ID: tf.io.FixedLenFeature([], tf.int64),
        MOVIE_ID: tf.io.FixedLenFeature([], tf.int64),
        LABEL: tf.io.FixedLenFeature([], tf.float32),
        TIMESTAMP: tf.io.FixedLenFeature([], tf.int64),
        # Ratings of the past, and examples of earlier versions, have none.
        PLACE: tf.io.FixedLenFeature([], tf.int64, default_value=-1),
    }
    rated: list[Arrays] = []
    latest: dict[int, tuple[int, bytes]] = {}
    for split in splits:
        for rows in records(uri, split):
            batch = _parse(rows, spec)
            # A place is the number of known ratings before. One of another split, which has as many before it as a
            # train rating, was rated before that one, since the train rating would count for it.
            places = batch[PLACE]
            batch[PLACE] = np.where(places < 0, places, 2 * places + (split == "train"))
            rated.append(batch)
            examples = rows.numpy()
            # The last place of each user, once the rows are sorted by user and time.
            order = np.lexsort((batch[TIMESTAMP], batch[USER_ID]))
            users = batch[USER_ID][order]
            for place in order[np.append(users[1:] != users[:-1], True)]:
                user, time = int(batch[USER_ID][place]), int(batch[TIMESTAMP][place])
                if time >= latest.get(user, (0, b""))[0]:
                    latest[user] = time, examples[place]
    return _concatenate(rated), latest


def _transformed(examples: Sequence[bytes], transform: tft.TFTransformOutput) -> Arrays:
    """Transformed features of the roles user, context and history: [examples, ...] by name."""
    layer, spec = transform.transform_features_layer(), transform.raw_feature_spec()
    roles = columns(Role.USER, Role.CONTEXT, Role.HISTORY, among=transform.transformed_feature_spec())
    names = [column.name for column in roles]
    return _concatenate(
        {name: features[name].numpy() for name in names}
        for part in np.array_split(np.array(examples, object), max(1, len(examples) // _BATCH_ROWS))
        for features in [with_int32_indices(layer(tf.io.parse_example(part, spec)))]
    )


def _latest_ratings(
    movies: np.ndarray, ratings: np.ndarray, times: np.ndarray, offsets: np.ndarray, length: int
) -> Arrays:
    """Returns each row's last `length` movies with their ratings and times, newest first: [rows, length]."""
    positions = offsets[1:, np.newaxis] - 1 - np.arange(length)
    inside = positions >= offsets[:-1, np.newaxis]
    positions = np.where(inside, positions, 0)
    return {
        transformed_name(HISTORY_MOVIES): np.where(inside, movies[positions], 0).astype(np.int32),
        transformed_name(HISTORY_RATINGS): np.where(inside, ratings[positions], 0).astype(np.float32),
        transformed_name(HISTORY_TIMES): np.where(inside, times[positions], 0).astype(np.int32),
    }


def _positions(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the index in `ids` of each wanted id."""
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _parse(rows: tf.Tensor, spec: dict[str, tf.io.FixedLenFeature]) -> Arrays:
    return {name: value.numpy() for name, value in tf.io.parse_example(rows, spec).items()}


def _concatenate(batches: Iterator[Arrays] | list[Arrays]) -> Arrays:
    parts = list(batches)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
