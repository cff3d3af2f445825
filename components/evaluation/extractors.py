"""What the Evaluator's TFMA hands on of each test row: of the features, those alone that it slices by.

TFMA takes batches apart row by row, and looks for a row's part of a list among all values of the batch. With histories
and seen movies that is nearly half of the Evaluator's time; predictions are made, and labels taken, before.
"""

from typing import Any

import apache_beam as beam
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.extractors.unbatch_extractor import UNBATCH_EXTRACTOR_STAGE_NAME
from tensorflow_model_analysis.proto import config_pb2


def custom_extractors(
    eval_shared_model: Any, eval_config: config_pb2.EvalConfig, tensor_adapter_config: Any
) -> list[tfma.extractors.Extractor]:
    """TFMA's own extractors, with one more right before batches are taken apart; called by the Evaluator component."""
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model, eval_config=eval_config, tensor_adapter_config=tensor_adapter_config
    )
    wanted = {key for spec in eval_config.slicing_specs for key in (*spec.feature_keys, *spec.feature_values)}
    place = [extractor.stage_name for extractor in extractors].index(UNBATCH_EXTRACTOR_STAGE_NAME)
    kept = tfma.extractors.Extractor("KeepSlicedFeatures", beam.Map(_keep, sorted(wanted)))
    return [*extractors[:place], kept, *extractors[place:]]


def _keep(extracts: tfma.types.Extracts, features: list[str]) -> tfma.types.Extracts:
    kept = {name: values for name, values in extracts.items() if name != tfma.INPUT_KEY}
    read = extracts[tfma.FEATURES_KEY]
    return kept | {tfma.FEATURES_KEY: {name: read[name] for name in features if name in read}}
