"""TFX component: which features matter, alone and in pairs, by the DCN's cross weights and by permutation."""

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx import v1 as tfx
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.importance.permutation import FEWEST_ROWS, Arrays, RowLosses, permutation_importance
from components.importance.report import (
    HTML_FILE,
    JSON_FILE,
    PICTURE_FILE,
    CrossWeights,
    Report,
    draw,
    to_html,
    to_json,
)
from trainers.datasets import predictor, read_rows
from trainers.likes import is_decided, is_liked
from trainers.loop.evaluation import log_losses
from transform.features import LABEL, columns, is_read, transformed_name

# The growth of a loss is taken from at least this many shuffled rows: fewer rows are shuffled several times, up to a
# limit.
_ROWS, _MOST_REPEATS = 20_000, 10


class FeatureImportanceReport(tfx.dsl.Artifact):
    """A folder with importance.json, importance.png and importance.html, a fragment to be put into a page."""

    # With a namespace, so that it cannot be the name of one of TFX's types.
    TYPE_NAME = "movielens.FeatureImportanceReport"


@tfx.dsl.components.component
def FeatureImportance(
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    examples: tfx.dsl.components.InputArtifact[list[standard_artifacts.Examples]],
    transform_graph: tfx.dsl.components.InputArtifact[standard_artifacts.TransformGraph],
    importance: tfx.dsl.components.OutputArtifact[FeatureImportanceReport],
    seed: tfx.dsl.components.Parameter[int] = 0,
) -> None:
    """Writes how much each feature and each pair of features matters: JSON, a picture, and HTML with the picture in it.

    Args:
      model: a DCN, exported with `trainers.dcn.Crosses` as its last head.
      examples: transformed examples, one artifact for each span; features are shuffled among the rows of their eval
        splits.
      transform_graph: the Transform output that belongs to the examples.
      importance: receives the report.
      seed: seed of the shuffling, and of the choice of rows if there are more than 20,000.
    """
    exported = tf.saved_model.load(path_utils.serving_model_path(model.uri))
    uris = [artifact_utils.get_split_uri([artifact], "eval") for artifact in examples]
    files = sorted(file for uri in uris for file in tf.io.gfile.glob(os.path.join(uri, "*")))
    rows = read_rows(files, tft.TFTransformOutput(transform_graph.uri))
    report = measure(exported, rows, seed)
    tf.io.gfile.makedirs(importance.uri)
    picture = draw(report)
    for name, content in (
        (JSON_FILE, to_json(report).encode()),
        (PICTURE_FILE, picture),
        (HTML_FILE, to_html(report, picture).encode()),
    ):
        with tf.io.gfile.GFile(os.path.join(importance.uri, name), "wb") as file:
            file.write(content)


def measure(exported: tf.Module, rows: Arrays, seed: int = 0) -> Report:
    """Measures the importance of an exported DCN's features.

    Fewer than two rows that the loss is defined for cannot be shuffled; the report then says so, and has the cross
    weights alone.

    Args:
      exported: a model with `trainers.dcn.Crosses` as its last head.
      rows: transformed features, [rows, ...] by name.
      seed: seed of the shuffling, and of the choice of rows if there are more than 20,000.
    """
    head = exported.heads[-1]
    features = [name.decode() for name in head.features.numpy()]
    weights = None
    if getattr(head, "cross_kernel", None) is not None:
        norms = block_norms(head.cross_kernel.numpy(), head.embedding_scales.numpy(), len(features))
        weights = CrossWeights(norms, head.cross_effects.numpy())
    objective, unit, losses, rows = _objective(exported, _sample_rows(rows, seed))
    count = len(rows[transformed_name(LABEL)])
    importance = None
    if count >= FEWEST_ROWS:
        importance = permutation_importance(
            rows,
            {name: [column.name for column in columns(among=rows) if column.feature.name == name] for name in features},
            losses,
            pairs=[(one, other) for place, one in enumerate(features) for other in features[place + 1 :]],
            repeats=min(_MOST_REPEATS, max(1, _ROWS // count)),
            seed=seed,
        )
    return Report(features, objective, unit, count, seed, importance, weights)


def block_norms(kernel: np.ndarray, scales: np.ndarray, count: int) -> np.ndarray:
    """How strongly a cross layer joins each pair of features.

    The strength is the Frobenius norm of the pair's blocks of weights. Each weight is multiplied by the scales of the
    two entries that it joins, since large weights on small embeddings do no more than small weights on large ones.

    Args:
      kernel: float [count * dim, count * dim], input by output.
      scales: float [count * dim], typical size of an embedding's entries.
      count: number of features.

    Returns:
      float [count, count], symmetric.
    """
    dim = len(kernel) // count
    scaled = kernel * np.outer(scales, scales)
    norms = np.linalg.norm(scaled.reshape(count, dim, count, dim), axis=(1, 3))
    return np.sqrt((np.square(norms) + np.square(norms.T)) / 2)


def _sample_rows(rows: Arrays, seed: int) -> Arrays:
    count = len(rows[transformed_name(LABEL)])
    chosen = np.random.default_rng(seed).permutation(count)[:_ROWS]
    return {name: values[chosen] for name, values in rows.items()}


def _objective(exported: tf.Module, rows: Arrays) -> tuple[str, str, RowLosses, Arrays]:
    """What the model is trained for.

    Returns:
      The name of the loss, the unit of the output, the loss of each row, and the rows that the loss is defined for.
    """
    label = transformed_name(LABEL)
    if hasattr(exported, "like_logits"):
        decided = is_decided(rows[label])
        predict_logits = _prediction(exported.like_logits)
        return (
            "log-loss",
            "log-odds",
            lambda given: log_losses(predict_logits(given), is_liked(given[label])),
            {name: values[decided] for name, values in rows.items()},
        )
    predict_ratings = _prediction(exported.ratings)
    return (
        "mean squared error",
        "stars",
        lambda given: np.square(predict_ratings(given) - given[label]),
        rows,
    )


def _prediction(function: Callable[[dict[str, tf.Tensor]], tf.Tensor]) -> Callable[[Arrays], np.ndarray]:
    """An exported function, which takes only what models read, for rows that have more: float64 [rows]."""
    predict = predictor(function)
    return lambda rows: predict({name: x for name, x in rows.items() if is_read(name)}).astype(np.float64)
