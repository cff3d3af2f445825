"""Keys of the ratings in an Examples artifact, by which one tells whether a model has seen another run's rows.

A key is a hash of user, movie and time.
"""

import io
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import tensorflow as tf

from components.ingestion.splits import SPLITS, row_hash

ROW_KEYS_FILE = "row_keys.npz"  # Stays when the rows are pruned.


@dataclass(frozen=True)
class RowKeys:
    """The keys of the ratings of each split.

    Attributes:
      train, eval, test: uint64 [ratings of the split], rising.
    """

    train: np.ndarray
    eval: np.ndarray
    test: np.ndarray

    @property
    def fitted(self) -> np.ndarray:
        """Those that models are fitted to: eval decides when training stops, and which settings win."""
        return np.concatenate([self.train, self.eval])


def row_keys(ratings: pd.DataFrame) -> RowKeys:
    """The keys of ratings.

    Args:
      ratings: with the columns user_id, movie_id, timestamp and split.
    """
    keys = row_hash(*(ratings[name].to_numpy() for name in ("user_id", "movie_id", "timestamp")))
    split = ratings["split"].to_numpy()
    return RowKeys(**{name: np.sort(keys[split == code]) for code, name in enumerate(SPLITS)})


def write_row_keys(uri: str, ratings: pd.DataFrame) -> None:
    """Writes the keys of ratings, as for `row_keys`, beside the splits of the artifact with this URI."""
    content = io.BytesIO()
    np.savez(content, **asdict(row_keys(ratings)))
    with tf.io.gfile.GFile(f"{uri}/{ROW_KEYS_FILE}", "wb") as file:
        file.write(content.getvalue())


def read_row_keys(uri: str) -> RowKeys | None:
    """The keys of the ratings of an artifact.

    Returns None for an artifact that has none: it was written by an earlier version, or removed.
    """
    path = f"{uri}/{ROW_KEYS_FILE}"
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as file:
        content = np.load(io.BytesIO(file.read()))
        if not set(SPLITS) <= set(content.files):
            return None
        return RowKeys(**{name: content[name] for name in SPLITS})
