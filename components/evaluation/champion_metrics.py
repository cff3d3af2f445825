"""A TFMA metric that compares a candidate with the champion, the model that was blessed last, row by row.

Both models are measured on the same test rows, so that the differences of rows tell how sure one can be of the
difference of their means. Two thousand rows know a recall@10 to .01, and the difference of two retrievers that mostly
find the same movies far better than that.
"""

from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.names import AT_BEST, AT_WORST, CHANGE
from components.evaluation.output_metrics import ERRORS, bounded_mean


class ChangesOfOutput(metric_types.Metric):
    """By how much the mean of an output is better than the champion's, with one-sided bounds; nothing without one.

    An error that is smaller is better, everything else is better when it is larger. The bounds are those of a normal
    distribution of the mean difference, whose standard error is that of independent rows.

    TensorFlow Model Analysis subtracts the champion's metrics from the candidate's. Those of the champion are therefore
    0 here, so that the differences, to which change thresholds apply, are the candidate's metrics.
    """

    def __init__(self, output: str, confidence: float, weight: str = "", prefix: str = ""):
        """Makes the metric.

        Args:
          output: name of an output that has one value per row.
          confidence: probability with which each of the bounds holds.
          weight: name of an output of the candidate that tells which rows count, 1 or 0; "" if all do.
          prefix: goes before the names of the metric.
        """
        super().__init__(_computations, output=output, confidence=confidence, weight=weight, prefix=prefix)


def _computations(
    output: str,
    confidence: float,
    weight: str = "",
    prefix: str = "",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: list[str] | None = None,
) -> list[metric_types.MetricComputation]:
    champion = tfma.utils.model_util.get_baseline_model_spec(eval_config) if eval_config else None
    if champion is None or not model_names:
        return []
    candidate = next(name for name in model_names if name != champion.name)
    names = [f"{prefix}{name}" for name in (CHANGE, AT_WORST, AT_BEST)]
    computations = []
    for model in model_names:
        keys = [metric_types.MetricKey(name, model_name=model, output_name=output) for name in names]
        models = (candidate, champion.name, model)
        combiner = _Changes(keys, output, weight, models, confidence)
        computations.append(metric_types.MetricComputation(keys=keys, preprocessors=None, combiner=combiner))
    return computations


class _Changes(beam.CombineFn):
    """Adds up the rows' differences, their squares, and the number of rows: float64 [3]."""

    def __init__(
        self,
        keys: list[metric_types.MetricKey],
        output: str,
        weight: str,
        models: tuple[str, str, str],
        confidence: float,
    ):
        """Makes the combiner.

        Args:
          keys: of the change, and of its lower and upper bound.
          output: the output to compare.
          weight: the output that tells which rows count, or "".
          models: names of the candidate, of the champion, and of that of both which the metrics are of.
          confidence: probability with which each of the bounds holds.
        """
        self._keys, self._output, self._weight, self._models = keys, output, weight, models
        self._confidence = confidence
        self._sign = -1.0 if output in ERRORS else 1.0

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(3)

    def add_input(self, sums: np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        candidate, champion, measured = (element.prediction[name] for name in self._models)
        if not self._weight or candidate[self._weight].item():
            # An earlier model may lack an output that was added since; no number comes of that, and no blessing.
            values = [model[self._output].item() if self._output in model else np.nan for model in (measured, champion)]
            difference = self._sign * (values[0] - values[1])
            sums += (difference, difference**2, 1.0)
        return sums

    def merge_accumulators(self, accumulators: Any) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, sums: np.ndarray) -> dict[metric_types.MetricKey, float]:
        total, squares, rows = sums
        return dict(zip(self._keys, bounded_mean(total, squares, rows, self._confidence), strict=True))
