"""Windows of consecutive ratings, which the sequence tower is trained on: many rows for the price of one pass.

A row asks what a person rates after what they rated before. So the row of a rating is asked at the event before it, and
an event of a person is both what earlier rows asked for and what later rows know.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainers.datasets import Arrays
from trainers.layers.towers import Tensors
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

SECONDS = transformed_name(TIMESTAMP, Kind.SECONDS)
HISTORY = tuple(transformed_name(name) for name in (HISTORY_MOVIES, HISTORY_RATINGS, HISTORY_TIMES))

# Of a place in a window: the event in it, as its movie, its rating and its time, which are 0 if there is none.
EVENT = ("event_movie", "event_rating", "event_time")
# The place of the first event that the event in a place may know of.
FIRST = "first"
# Whether a row is asked in a place.
IS_TARGET = "is_target"


class _Pieces(NamedTuple):
    """Consecutive rows of one person with events that were before them.

    Attributes:
      start: int [pieces], number of the first row among the sorted ones.
      rows: int [pieces], how many rows.
      before: int [pieces], how many events of the first row's history the piece has before it.
    """

    start: np.ndarray
    rows: np.ndarray
    before: np.ndarray

    @property
    def asked_first(self) -> np.ndarray:
        """The place within each piece where its first row is asked; without history, that is a place without event."""
        return np.maximum(self.before, 1) - 1

    @property
    def lengths(self) -> np.ndarray:
        """How many places each piece takes."""
        return self.asked_first + self.rows


def window_length(train: Arrays) -> int:
    """How many events a window holds: as many as people have in their histories when they ask.

    At least 2, since a single one would be a row's own, and the row would know nothing.
    """
    return max(2, train[HISTORY[0]].shape[1])


def windows(train: Arrays, whole_rows: bool = False) -> Arrays:
    """Puts the train rows of all people into windows of events.

    A person's rows are one piece if they are few. If there are too many for a window, every later piece begins with the
    events of half a window, so that each of its rows knows at least these. Where the person has rated something between
    two rows that is none of them, as in a span before those that models are trained on, the second begins a piece, too,
    with no more events before it. Pieces share windows, and know nothing of each other.

    Args:
      train: transformed features of the train split, [rows, ...] by name.
      whole_rows: whether windows hold all features of their rows, also those that this tower does not read.

    Returns:
      Features by name: `EVENT`, `FIRST` and `IS_TARGET`, [windows, length] with `window_length`; and the features of
      the rows that are asked, [windows, length, ...], which are 0 where no row is asked: without `whole_rows`, those of
      the person and the moment, and each row's own movie and rating. Every row is asked once.
    """
    length = window_length(train)
    order = np.lexsort((train[transformed_name(PLACE)], train[transformed_name(USER_ID)]))
    pieces = _pieces(train, order, length)
    window, start = _packed(pieces.lengths, length)
    count = int(window.max()) + 1
    # Places are numbered through all windows.
    origin = window * length + start
    piece, number = _numbered(pieces.rows)
    rows = order[pieces.start[piece] + number]
    asked = origin[piece] + pieces.asked_first[piece] + number

    names = [column.name for column in columns(Role.USER, Role.CONTEXT, among=train)]
    names += [transformed_name(MOVIE_ID), transformed_name(LABEL)]
    made = {name: _placed(train[name][rows], asked, count * length) for name in (train if whole_rows else names)}
    made[IS_TARGET] = _placed(np.ones(len(rows), bool), asked, count * length)

    # The last row of a piece is an event for nobody.
    is_known = number < pieces.rows[piece] - 1
    of_piece, back = _numbered(pieces.before)
    earlier = origin[of_piece] + pieces.asked_first[of_piece] - back
    of_rows = (transformed_name(MOVIE_ID), transformed_name(LABEL), SECONDS)
    for event, name, history in zip(EVENT, of_rows, HISTORY, strict=True):
        made[event] = _placed(train[name][rows[is_known]], asked[is_known] + 1, count * length)
        made[event][earlier] = train[history][order[pieces.start[of_piece]], back]
    own, number = _numbered(pieces.lengths)
    made[FIRST] = _placed(start[own].astype(np.int32), origin[own] + number, count * length)
    return {name: values.reshape([count, length, *values.shape[1:]]) for name, values in made.items()}


def _pieces(train: Arrays, order: np.ndarray, length: int) -> _Pieces:
    """Cuts the sorted rows into pieces that fit into windows."""
    users, place = train[transformed_name(USER_ID)][order], train[transformed_name(PLACE)][order]
    known = np.count_nonzero(train[HISTORY[0]], axis=1)[order]
    most_before = length // 2
    is_next = (np.diff(users) == 0) & (np.diff(place) == 1)
    runs = np.flatnonzero(~np.concatenate([[False], is_next]))
    counts = np.diff(runs, append=len(order))
    in_first = length + 1 - np.clip(known[runs], 1, most_before)
    in_later = length + 1 - most_before
    run, number = _numbered(1 + -(-np.maximum(counts - in_first, 0) // in_later))
    skipped = np.where(number == 0, 0, in_first[run] + (number - 1) * in_later)
    rows = np.minimum(counts[run] - skipped, np.where(number == 0, in_first[run], in_later))
    start = runs[run] + skipped
    return _Pieces(start, rows, np.minimum(known[start], most_before))


def _packed(lengths: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Puts pieces into windows, the longest first, each where the least room is left over.

    Args:
      lengths: how many places each piece takes.
      length: number of places in a window.

    Returns:
      The window of each piece, and the place in it where the piece starts: int [pieces].
    """
    window, start = np.zeros((2, len(lengths)), np.int64)
    # Windows by the number of places that are left in them.
    left: list[list[int]] = [[] for _ in range(length + 1)]
    count = 0
    for piece in np.argsort(-lengths, kind="stable"):
        needed = lengths[piece]
        room = next((room for room in range(needed, length) if left[room]), length)
        if room == length:
            left[room].append(count)
            count += 1
        window[piece], start[piece] = left[room].pop(), length - room
        left[room - needed].append(window[piece])
    return window, start


def _numbered(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of `counts[i]` items of each i, one after the other: the i of each item, and its number among those of i."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _placed(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Values in some of `count` places; 0 in the others."""
    placed = np.zeros((count, *values.shape[1:]), values.dtype)
    placed[places] = values
    return placed


def without_times(windows_: Tensors, hidden: tf.Tensor) -> Tensors:
    """Hides when the ratings of some windows were, as of people who tell what they rated but not when.

    Args:
      windows_: features of a batch of windows.
      hidden: bool [windows].
    """
    times = {name: windows_[name] for name in (EVENT[2], HISTORY[2], SECONDS) if name in windows_}
    return windows_ | {
        name: tf.where(tf.reshape(hidden, [-1, *[1] * (len(values.shape) - 1)]), 0, values)
        for name, values in times.items()
    }


def rows_of(windows_: Tensors) -> Tensors:
    """The features of what is asked in each place of a batch of windows, [windows * length, ...] by name."""
    rows = {name: values for name, values in windows_.items() if name not in (*EVENT, FIRST, IS_TARGET)}
    return {name: tf.reshape(values, [-1, *values.shape[2:]]) for name, values in rows.items()}
