"""TFMA extractors for the Evaluator that keep, of a test row's features, only those by which metrics are sliced.

TFMA splits each batch into rows, and for each row's part of a list it searches all values of the batch. With histories
and seen movies, that takes nearly half of the Evaluator's time. After the split, features are needed for slicing only,
because predictions and labels are extracted before it.
"""

from typing import Any

import apache_beam as beam
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.extractors.unbatch_extractor import UNBATCH_EXTRACTOR_STAGE_NAME
from tensorflow_model_analysis.proto import config_pb2


def custom_extractors(
    eval_shared_model: Any, eval_config: config_pb2.EvalConfig, tensor_adapter_config: Any
) -> list[tfma.extractors.Extractor]:
    """Adds an extractor to TFMA's own, right before batches are split into rows; the Evaluator component calls this."""
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model, eval_config=eval_config, tensor_adapter_config=tensor_adapter_config
    )
    sliced = {key for spec in eval_config.slicing_specs for key in (*spec.feature_keys, *spec.feature_values)}
    unbatch = [extractor.stage_name for extractor in extractors].index(UNBATCH_EXTRACTOR_STAGE_NAME)
    keep = tfma.extractors.Extractor("KeepSlicedFeatures", beam.Map(_keep_features, sorted(sliced)))
    return [*extractors[:unbatch], keep, *extractors[unbatch:]]


def _keep_features(extracts: tfma.types.Extracts, names: list[str]) -> tfma.types.Extracts:
    kept = {name: values for name, values in extracts.items() if name != tfma.INPUT_KEY}
    features = extracts[tfma.FEATURES_KEY]
    return kept | {tfma.FEATURES_KEY: {name: features[name] for name in names if name in features}}
