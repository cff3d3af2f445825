"""Windows of consecutive ratings of one person, which the sequence tower is trained on."""

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

# Which places of a window hold a row.
IS_TARGET = "is_target"

SECONDS = transformed_name(TIMESTAMP, Kind.SECONDS)
HISTORY = tuple(transformed_name(name) for name in (HISTORY_MOVIES, HISTORY_RATINGS, HISTORY_TIMES))


def windows(train: Arrays, size: int, whole_rows: bool = False) -> Arrays:
    """Cuts the train rows of each person into windows of consecutive ratings.

    Args:
      train: transformed features of the train split, [rows, ...] by name.
      size: largest number of rows in a window.
      whole_rows: whether windows hold all features of their rows, also those that this tower does not read.

    Returns:
      Features by name: those of the person, of the moment, the movie and the rating of each row, [windows, size, ...],
      padded with 0; the history of the first row, [windows, history_length], or of each row,
      [windows, size, history_length]; and `is_target`, bool [windows, size], which places hold a row. Every row is in
      one window. Where the person has rated something between two rows that is none of them, as in a span before those
      that models are trained on, the second begins a window.
    """
    users, place = train[transformed_name(USER_ID)], train[transformed_name(PLACE)]
    order = np.lexsort((place, users))
    is_next = (np.diff(users[order]) == 0) & (np.diff(place[order]) == 1)
    starts = np.flatnonzero(~np.concatenate([[False], is_next]))
    counts = np.diff(starts, append=len(order))
    per_user = -(-counts // size)
    first = np.repeat(starts, per_user) + size * (
        np.arange(per_user.sum()) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    )
    end = np.repeat(starts + counts, per_user)
    places = first[:, np.newaxis] + np.arange(size)
    is_target = places < end[:, np.newaxis]
    rows = order[np.where(is_target, places, first[:, np.newaxis])]
    of_rows = [column.name for column in columns(Role.USER, Role.CONTEXT, among=train)]
    of_rows += [transformed_name(MOVIE_ID), transformed_name(LABEL)]
    window: Arrays = {name: train[name][rows] for name in (train if whole_rows else of_rows)}
    for values in window.values():
        values[~is_target] = 0
    histories = {} if whole_rows else {name: train[name][rows[:, 0]] for name in HISTORY}
    return window | histories | {IS_TARGET: is_target}


def without_times(windows_: Tensors, hidden: tf.Tensor) -> Tensors:
    """Hides when the ratings of some windows were, as of people who tell what they rated but not when.

    Args:
      windows_: features of a batch of windows.
      hidden: bool [windows].
    """
    times = {name: windows_[name] for name in (HISTORY[2], SECONDS)}
    return windows_ | {
        name: tf.where(tf.reshape(hidden, [-1, *[1] * (len(values.shape) - 1)]), 0, values)
        for name, values in times.items()
    }


def rows_of(windows_: Tensors) -> Tensors:
    """The rows of a batch of windows, padding included: their features, [windows * size, ...] by name."""
    not_of_rows = (IS_TARGET, *(name for name in HISTORY if len(windows_[name].shape) == 2))
    rows = {name: values for name, values in windows_.items() if name not in not_of_rows}
    return {name: tf.reshape(values, [-1, *values.shape[2:]]) for name, values in rows.items()}
