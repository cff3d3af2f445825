"""The rows that ExampleGen or Transform has written."""

import hashlib
from pathlib import Path

import tensorflow as tf


def rows_of(split: Path) -> str:
    """A digest of the rows of a split, whatever their order and that of their features."""
    files = sorted(str(file) for file in split.glob("*.gz"))
    rows = hashlib.sha256()
    for row in sorted(
        b"".join(
            name.encode() + feature.SerializeToString(deterministic=True)
            for name, feature in sorted(tf.train.Example.FromString(record).features.feature.items())
        )
        for record in tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
    ):
        rows.update(row)
    return rows.hexdigest()
