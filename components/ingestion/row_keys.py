"""Keys of the ratings in an Examples artifact, by which one tells whether a model has seen another run's test rows.

A key is a hash of user, movie and time. The ratings that models are fitted to are those of train and of eval, which
decides when training stops and which settings win.
"""

import io

import numpy as np
import pandas as pd
import tensorflow as tf

from components.ingestion.splits import TEST, row_hash

ROW_KEYS_FILE = "row_keys.npz"  # Stays when the rows are pruned.


def row_keys(ratings: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The keys of the ratings that models are fitted to, and of the test ratings: uint64 [ratings] each, rising.

    Args:
      ratings: as for `write_row_keys`.
    """
    keys = row_hash(*(ratings[name].to_numpy() for name in ("user_id", "movie_id", "timestamp")))
    is_test = ratings["split"].to_numpy() == TEST
    return np.sort(keys[~is_test]), np.sort(keys[is_test])


def write_row_keys(uri: str, ratings: pd.DataFrame) -> None:
    """Writes the keys of ratings beside the splits of an artifact.

    Args:
      uri: of the artifact.
      ratings: with the columns user_id, movie_id, timestamp and split.
    """
    fitted, test = row_keys(ratings)
    content = io.BytesIO()
    np.savez(content, fitted=fitted, test=test)
    with tf.io.gfile.GFile(f"{uri}/{ROW_KEYS_FILE}", "wb") as file:
        file.write(content.getvalue())


def read_row_keys(uri: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The keys of the ratings that models are fitted to, and of the test ratings: uint64 [ratings] each, rising.

    Returns None for an artifact that has none: it was written by an earlier version, or removed.
    """
    path = f"{uri}/{ROW_KEYS_FILE}"
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as file:
        content = np.load(io.BytesIO(file.read()))
    return content["fitted"], content["test"]
