"""Runs the pipeline's data components on MovieLens, for methods that need features, and caches their output."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from benchmarks.data_job import data_pipeline
from components.data.contents import content_hash
from components.ingestion.histories import Ragged
from components.ingestion.splits import SplitConfig
from pipeline.config import Config, DataConfig
from pipeline.local.runner import run_pipeline
from pipeline.nodes import NodeRun
from pipeline.source import source_key
from trainers.datasets import Arrays, Splits, read_splits, with_int32_indices, without_autotuning
from transform.features import MOVIE_ID, SEEN_MOVIES, USER_ID, vocabulary_name

_TRAIN_SPLITS = ("train", "movies")
_DONE_FILE, _TEST_FILE = "done", "test.npz"
_SEEN_COUNTS = "seen_counts"
_BATCH = 4096
# What the data components run, apart from TFX's own code.
_MODULES = (
    "components.ingestion.movielens_example_gen",
    "components.validation.curated_schema",
    "components.validation.data_gate",
    "transform.preprocessing",
)


@dataclass(frozen=True)
class Transformed:
    """Transformed features of all splits.

    Attributes:
      splits: the train and eval rows, as a Trainer reads them.
      test: the test rows, transformed by the Transform graph as in an exported model: [rows, ...] by name.
      test_users: int64 [rows], the user_id of each test row; `test` has an index only for users who are in train.
      seen: for each test row, indices of the movies that filtered metrics leave out.
    """

    splits: Splits
    test: Arrays
    test_users: np.ndarray
    seen: Ragged

    def seen_pairs(self, start: int, end: int) -> np.ndarray:
        """Seen movies of the test rows `start` to `end`: int64 [pairs, 2] of row, from `start`, and movie index."""
        offsets = self.seen.offsets[start : end + 1]
        rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        return np.stack([rows, self.seen.values[offsets[0] : offsets[-1]]], axis=1)


def load_transformed(
    data: Path,
    cache: Path,
    split: SplitConfig,
    on_node: Callable[[str], None],
    history_length: int = DataConfig().history_length,
) -> Transformed:
    """Runs ExampleGen to Transform in this process, or reads the cached output of an earlier call.

    Args:
      data: folder of the raw files.
      cache: folder of the cache; has a folder for each combination of settings, contents of the raw files and code.
      split: the split of the ratings.
      on_node: called with the name of each component that starts.
      history_length: number of movies in a history.
    """
    # At level INFO, TFX logs every artifact.
    logging.getLogger("absl").setLevel(logging.WARNING)
    config = Config(name="data", data=DataConfig(split=split, history_length=history_length))
    root = cache / _cache_key(data, config.data)
    if not (root / _DONE_FILE).exists():
        root.mkdir(parents=True, exist_ok=True)
        run_pipeline(data_pipeline(data, root, config), "local", _NodeReporter(on_node))
    splits = read_splits(
        FnArgs(
            transform_graph_path=_output_folder(root, "Transform/transform_graph"),
            train_files=[
                f"{_output_folder(root, 'Transform/transformed_examples')}/Split-{name}/*" for name in _TRAIN_SPLITS
            ],
            eval_files=[f"{_output_folder(root, 'Transform/transformed_examples')}/Split-eval/*"],
        )
    )
    if not (root / _TEST_FILE).exists():
        test = _test_rows(f"{_output_folder(root, 'MovieLensExampleGen/examples')}/Split-test/*", splits)
        # Written under another name first, so that a file cut short by an interruption is never read.
        np.savez(root / f"unfinished-{_TEST_FILE}", allow_pickle=False, **test)
        (root / f"unfinished-{_TEST_FILE}").rename(root / _TEST_FILE)
    (root / _DONE_FILE).touch()
    with np.load(root / _TEST_FILE) as file:
        test = dict(file)
    seen = Ragged(np.cumsum([0, *test.pop(_SEEN_COUNTS)]), test.pop(SEEN_MOVIES))
    return Transformed(splits, test, test.pop(USER_ID), seen)


class _NodeReporter:
    """Reports each node that starts; implements `pipeline.local.nodes.Observer`."""

    def __init__(self, on_node: Callable[[str], None]):
        self._on_node = on_node

    def started(self, node_id: str) -> None:
        self._on_node(node_id)

    def finished(self, node: NodeRun) -> None:
        del node


def _cache_key(data: Path, config: DataConfig) -> str:
    digest = hashlib.sha256(source_key(*_MODULES).encode())
    digest.update(content_hash(data).encode())
    digest.update(config.model_dump_json().encode())
    return f"{config.split.strategy}-seed{config.split.seed}-{digest.hexdigest()[:12]}"


def _output_folder(root: Path, output: str) -> str:
    """The folder of an output. After interrupted runs there may be several; only the latest can be complete."""
    return str(max((root / output).iterdir(), key=lambda folder: int(folder.name)))


def _test_rows(pattern: str, splits: Splits) -> Arrays:
    spec, layer = splits.transform.raw_feature_spec(), splits.transform.transform_features_layer()
    vocabulary = splits.transform.vocabulary_by_name(vocabulary_name(MOVIE_ID))
    movies = pd.Index([int(movie) for movie in vocabulary])

    @tf.function(autograph=False)
    def features(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        raw = tf.io.parse_example(examples, spec)
        seen = raw[SEEN_MOVIES]
        counts = tf.math.bincount(tf.cast(seen.indices[:, 0], tf.int32), minlength=tf.size(examples))
        return with_int32_indices(layer(raw)) | {
            USER_ID: raw[USER_ID].values,
            SEEN_MOVIES: seen.values,
            _SEEN_COUNTS: counts,
        }

    wanted = {USER_ID, SEEN_MOVIES, _SEEN_COUNTS, *splits.train}
    records = without_autotuning(
        tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(pattern)), compression_type="GZIP").batch(_BATCH)
    )
    batches = [
        {name: values.numpy() for name, values in features(examples).items() if name in wanted} for examples in records
    ]
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    # Indices start at 1. A movie that is not in the vocabulary has -1 from `get_indexer`, and so becomes 0.
    return rows | {SEEN_MOVIES: movies.get_indexer(pd.Index(rows[SEEN_MOVIES])) + 1}
