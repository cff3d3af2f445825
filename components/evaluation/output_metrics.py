"""TFMA metrics of many outputs of a model at once: their means, and their errors against the label.

TFMA's own take one output each. Every one of them goes over all rows again, in Python, and that takes most of the
Evaluator's time: of a retriever, with its dozen figures a row, and of a model of ratings, too.
"""

from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types

# As MeanPrediction and TFMA's errors call them, so that who reads the results need not know which of the two it was.
MEAN = "mean_prediction"
RMSE, MAE = "root_mean_squared_error", "mean_absolute_error"


class MeanOutputs(metric_types.Metric):
    """Means over rows, unweighted; of an output that is not a number in some row, not a number."""

    def __init__(self, outputs: list[str]):
        """Makes the metric; `outputs` are names of outputs that have one value a row."""
        super().__init__(_for_each_model(_Means), outputs=outputs)


class OutputErrors(metric_types.Metric):
    """Root mean squared and mean absolute errors against the label, over rows, unweighted."""

    def __init__(self, outputs: list[str]):
        """Makes the metric; `outputs` are names of outputs that have one value a row."""
        super().__init__(_for_each_model(_Errors), outputs=outputs)


def _for_each_model(combiner: type["_RowMeans"]) -> Callable[..., list[metric_types.MetricComputation]]:
    def computations(outputs: list[str], model_names: list[str] | None = None) -> list[metric_types.MetricComputation]:
        combiners = [combiner(model, outputs) for model in model_names or [""]]
        return [metric_types.MetricComputation(keys=each.keys, preprocessors=None, combiner=each) for each in combiners]

    return computations


class _RowMeans(beam.CombineFn):
    """Sums of some figures a row, and the number of rows: float64 [figures + 1].

    Attributes:
      names: of the figures that there are of each output.
      keys: of all figures, those of one name after the other's.
    """

    names: tuple[str, ...]

    def __init__(self, model: str, outputs: list[str]):
        self._model, self._outputs = model, outputs
        self.keys = [
            metric_types.MetricKey(name, model_name=model, output_name=output)
            for name in self.names
            for output in outputs
        ]

    def of_row(self, values: np.ndarray, label: Any) -> np.ndarray:
        """The figures of a row: float64 [figures]; `values` are the outputs, float64 [outputs]."""
        raise NotImplementedError

    def of_means(self, means: np.ndarray) -> np.ndarray:
        """What becomes of their means: float64 [figures]."""
        return means

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(len(self.keys) + 1)

    def add_input(self, sums: np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        predictions, label = self._of_model(element.prediction), self._of_model(element.label)
        values = np.array([predictions[output].item() for output in self._outputs])
        sums[:-1] += self.of_row(values, label)
        sums[-1] += 1
        return sums

    def _of_model(self, values: Any) -> Any:
        return values[self._model] if isinstance(values, dict) and self._model and self._model in values else values

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, sums: np.ndarray) -> dict[metric_types.MetricKey, float]:
        means = sums[:-1] / sums[-1] if sums[-1] else np.full(len(self.keys), np.nan)
        return dict(zip(self.keys, self.of_means(means).tolist(), strict=True))


class _Means(_RowMeans):
    names = (MEAN,)

    def of_row(self, values: np.ndarray, label: Any) -> np.ndarray:
        del label
        return values


class _Errors(_RowMeans):
    names = (RMSE, MAE)

    def of_row(self, values: np.ndarray, label: Any) -> np.ndarray:
        errors = values - label.item()
        return np.concatenate([errors**2, np.abs(errors)])

    def of_means(self, means: np.ndarray) -> np.ndarray:
        squares, absolutes = np.split(means, 2)
        return np.concatenate([np.sqrt(squares), absolutes])
