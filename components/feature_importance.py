"""TFX component: which pairs of features matter together, read off the cross weights of the DCN."""

import json
import os
from typing import BinaryIO

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from tfx import v1 as tfx
from tfx.types import standard_artifacts
from tfx.utils import path_utils

JSON_FILE, PICTURE_FILE = "importance.json", "importance.png"


class FeatureImportanceReport(tfx.dsl.Artifact):
    """A folder with importance.json and importance.png."""

    # Kubeflow Pipelines takes names of types with a namespace only.
    TYPE_NAME = "movielens.FeatureImportanceReport"


@tfx.dsl.components.component
def FeatureImportance(
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    importance: tfx.dsl.components.OutputArtifact[FeatureImportanceReport],
) -> None:
    """Writes the strength of every pair of features, as JSON and as a heat map.

    Args:
      model: a DCN, exported with a `trainers.dcn.CrossHead`.
      importance: receives the report.
    """
    head = tf.saved_model.load(path_utils.serving_model_path(model.uri)).heads[0]
    features = [name.decode() for name in head.features.numpy()]
    strengths = pair_strengths(head.cross_kernel.numpy(), head.embedding_scales.numpy())
    tf.io.gfile.makedirs(importance.uri)
    with tf.io.gfile.GFile(os.path.join(importance.uri, JSON_FILE), "w") as file:
        json.dump({"pairs": ranked_pairs(features, strengths)}, file, indent=2)
    with tf.io.gfile.GFile(os.path.join(importance.uri, PICTURE_FILE), "wb") as file:
        draw(features, strengths, file)


def pair_strengths(kernel: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """How strongly a cross layer joins each pair of features.

    The Frobenius norm of the pair's blocks of weights, times the scales of both embeddings: large weights on small
    embeddings do no more than small weights on large ones.

    Args:
      kernel: float [features * dim, features * dim].
      scales: float [features], typical size of an embedding's entries.

    Returns:
      float [features, features], symmetric.
    """
    count = len(scales)
    dim = len(kernel) // count
    norms = np.linalg.norm(kernel.reshape(count, dim, count, dim), axis=(1, 3))
    scaled = norms * np.outer(scales, scales)
    return np.sqrt((np.square(scaled) + np.square(scaled.T)) / 2)


def ranked_pairs(features: list[str], strengths: np.ndarray) -> list[dict[str, object]]:
    """Pairs of different features, strongest first."""
    first, second = np.triu_indices(len(features), k=1)
    order = np.argsort(-strengths[first, second])
    return [
        {"features": [features[first[i]], features[second[i]]], "strength": float(strengths[first[i], second[i]])}
        for i in order
    ]


def draw(features: list[str], strengths: np.ndarray, file: BinaryIO) -> None:
    """Draws the strengths as a heat map, in PNG."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(strengths, cmap="viridis")
    axes.set_xticks(range(len(features)), features, rotation=45, ha="right")
    axes.set_yticks(range(len(features)), features)
    axes.set_title("Cross strength of feature pairs")
    figure.colorbar(image, label="block norm x embedding scales")
    figure.savefig(file, format="png", dpi=120)
