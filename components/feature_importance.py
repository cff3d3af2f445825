"""TFX component: which pairs of features matter together, read off the cross weights of the DCN."""

import os

import matplotlib
import tensorflow as tf
from tfx import v1 as tfx
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from trainers.dcn import CROSSED_FEATURES

matplotlib.use("Agg")

JSON_FILE, PICTURE_FILE = "importance.json", "importance.png"


class FeatureImportanceReport(tfx.dsl.Artifact):
    """A folder with importance.json and importance.png."""

    TYPE_NAME = "FeatureImportanceReport"


@tfx.dsl.components.component
def FeatureImportance(
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    importance: tfx.dsl.components.OutputArtifact[FeatureImportanceReport],
) -> None:
    """Writes the strength of every pair of features, as JSON and as a heat map.

    Args:
      model: a DCN with variables `cross_kernels` and `embedding_scales`.
      importance: receives the report.
    """
    loaded = tf.saved_model.load(path_utils.serving_model_path(model.uri))
    kernel = loaded.cross_kernel().numpy()
    strengths = block_norms(kernel, loaded.embedding_scales().numpy(), len(CROSSED_FEATURES))
    tf.io.gfile.makedirs(importance.uri)
    _write_json(strengths, os.path.join(importance.uri, JSON_FILE))
    _draw(strengths, os.path.join(importance.uri, PICTURE_FILE))
