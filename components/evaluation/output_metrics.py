"""TFMA metrics that handle many outputs of a model at once: their means, and their errors against the label.

TFMA's own metrics take one output each, and each metric goes over all rows again, in Python. This would take most of
the Evaluator's time, both for a retriever, which has a dozen outputs per row, and for a rating model.
"""

from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types

# The names that TFMA's own metrics have, so that readers of the results need not know which metric computed them.
MEAN = "mean_prediction"
RMSE, MAE = "root_mean_squared_error", "mean_absolute_error"


class MeanOutputs(metric_types.Metric):
    """Unweighted means of outputs over rows; NaN for an output that is NaN in any row."""

    def __init__(self, outputs: list[str]):
        """Takes the names of the outputs, which have one value per row."""
        super().__init__(_for_each_model(_Means), outputs=outputs)


class OutputErrors(metric_types.Metric):
    """Root mean squared and mean absolute errors of outputs against the label, over rows, unweighted."""

    def __init__(self, outputs: list[str]):
        """Takes the names of the outputs, which have one value per row."""
        super().__init__(_for_each_model(_Errors), outputs=outputs)


def _for_each_model(combiner: type["_RowMeans"]) -> Callable[..., list[metric_types.MetricComputation]]:
    def computations(outputs: list[str], model_names: list[str] | None = None) -> list[metric_types.MetricComputation]:
        combiners = [combiner(model, outputs) for model in model_names or [""]]
        return [metric_types.MetricComputation(keys=each.keys, preprocessors=None, combiner=each) for each in combiners]

    return computations


class _RowMeans(beam.CombineFn):
    """Averages figures over rows.

    An accumulator is float64 [figures + 1]: the sum of each figure, and the number of rows.

    Attributes:
      names: names of the metrics, which every output has.
      keys: keys of all metrics and outputs, in the order of the figures: grouped by metric.
    """

    names: tuple[str, ...]

    def __init__(self, model: str, outputs: list[str]):
        self._model, self._outputs = model, outputs
        self.keys = [
            metric_types.MetricKey(name, model_name=model, output_name=output)
            for name in self.names
            for output in outputs
        ]

    def row_figures(self, values: np.ndarray, label: Any) -> np.ndarray:
        """Computes a row's figures, float64 [figures], from its outputs, float64 [outputs], and its label."""
        raise NotImplementedError

    def from_means(self, means: np.ndarray) -> np.ndarray:
        """Turns the means of the figures into the metrics: float64 [figures]."""
        return means

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(len(self.keys) + 1)

    def add_input(self, sums: np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        predictions, label = self._select_model(element.prediction), self._select_model(element.label)
        values = np.array([predictions[output].item() for output in self._outputs])
        sums[:-1] += self.row_figures(values, label)
        sums[-1] += 1
        return sums

    def _select_model(self, values: Any) -> Any:
        return values[self._model] if isinstance(values, dict) and self._model and self._model in values else values

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, sums: np.ndarray) -> dict[metric_types.MetricKey, float]:
        means = sums[:-1] / sums[-1] if sums[-1] else np.full(len(self.keys), np.nan)
        return dict(zip(self.keys, self.from_means(means).tolist(), strict=True))


class _Means(_RowMeans):
    names = (MEAN,)

    def row_figures(self, values: np.ndarray, label: Any) -> np.ndarray:
        del label
        return values


class _Errors(_RowMeans):
    names = (RMSE, MAE)

    def row_figures(self, values: np.ndarray, label: Any) -> np.ndarray:
        errors = values - label.item()
        return np.concatenate([errors**2, np.abs(errors)])

    def from_means(self, means: np.ndarray) -> np.ndarray:
        squares, absolutes = np.split(means, 2)
        return np.concatenate([np.sqrt(squares), absolutes])
