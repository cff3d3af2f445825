"""The artifact that lists the rows which MovieLensExampleGen left out."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from tfx import types

from components.data.bad_rows import BadRow, count_by_kind
from components.data.places import below

QUARANTINE_FILE = "rows.csv"
FIELDS = ("file", "line", "kind", "expected", "text")


class QuarantinedRows(types.Artifact):
    """A folder with rows.csv: file, line (from 1), kind, expected and text of every row that was left out.

    Custom properties: `rows`, their number, and `rows_KIND`, the number of each kind that occurs, with underscores for
    spaces.
    """

    # With a namespace, so that it cannot be the name of one of TFX's types.
    TYPE_NAME = "movielens.QuarantinedRows"


def write_quarantine(artifact: QuarantinedRows, rows: Sequence[BadRow], base: Path) -> None:
    """Writes rows.csv, which has only its header if there are no rows, and sets the custom properties.

    Args:
      artifact: where to write.
      rows: the rows that were left out.
      base: the input folder, against which files are named.
    """
    tf.io.gfile.makedirs(artifact.uri)
    with tf.io.gfile.GFile(os.path.join(artifact.uri, QUARANTINE_FILE), "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows((below(row.file, base), row.line, row.kind, row.expected, row.text) for row in rows)
    artifact.set_int_custom_property("rows", len(rows))
    for kind, count in count_by_kind(rows).items():
        artifact.set_int_custom_property(f"rows_{kind.replace(' ', '_')}", count)
