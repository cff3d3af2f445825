"""A TFMA metric: the means of many outputs of a model at once.

TFMA's own MeanPrediction takes one output. Each of them goes over all rows again, in Python, and for a retriever, with
its dozen figures a row, that takes most of the Evaluator's time.
"""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types

# As MeanPrediction calls it, so that who reads the results need not know which of the two it was.
NAME = "mean_prediction"


class MeanOutputs(metric_types.Metric):
    """Means over rows, unweighted; of an output that is not a number in some row, not a number."""

    def __init__(self, outputs: list[str]):
        """Makes the metric; `outputs` are names of outputs that have one value a row."""
        super().__init__(_computations, outputs=outputs)


def _computations(outputs: list[str], model_names: list[str] | None = None) -> list[metric_types.MetricComputation]:
    computations = []
    for model in model_names or [""]:
        keys = [metric_types.MetricKey(NAME, model_name=model, output_name=output) for output in outputs]
        computations.append(metric_types.MetricComputation(keys=keys, preprocessors=None, combiner=_Means(model, keys)))
    return computations


class _Means(beam.CombineFn):
    """Sums of the outputs, and the number of rows: float64 [outputs + 1]."""

    def __init__(self, model: str, keys: list[metric_types.MetricKey]):
        self._model, self._keys = model, keys
        self._outputs = [key.output_name for key in keys]

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(len(self._keys) + 1)

    def add_input(self, sums: np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        predictions: Any = element.prediction
        if self._model and self._model in predictions:
            predictions = predictions[self._model]
        sums[:-1] += [predictions[output].item() for output in self._outputs]
        sums[-1] += 1
        return sums

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, sums: np.ndarray) -> dict[metric_types.MetricKey, float]:
        means = sums[:-1] / sums[-1] if sums[-1] else np.full(len(self._keys), np.nan)
        return dict(zip(self._keys, means.tolist(), strict=True))
