"""TFMA metrics that handle many outputs of a model at once: their means, and their errors against the label.

TFMA's own metrics take one output each, and each metric goes over all rows again, in Python. This would take most of
the Evaluator's time, both for a retriever, which has a dozen outputs per row, and for a rating model.
"""

from collections.abc import Callable, Iterable
from statistics import NormalDist
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types

from components.evaluation.names import MEAN_AT_BEST, MEAN_AT_WORST

# The names that TFMA's own metrics have, so that readers of the results need not know which metric computed them.
MEAN = "mean_prediction"
RMSE, MAE = "root_mean_squared_error", "mean_absolute_error"
# Names of the metrics that TFMA has not.
LIKED_MEAN, HIT_MEAN, SHARE_KEPT, SHARE_KEPT_AT_MOST = "liked_mean", "hit_mean", "share_kept", "share_kept_at_most"

# Outputs that are better when they are smaller.
ERRORS = ("squared_error", "log_loss")


class MeanOutputs(metric_types.Metric):
    """Means of outputs over rows; NaN for an output that is NaN in any row that counts."""

    def __init__(self, outputs: list[str], weight: str = "", name: str = MEAN):
        """Makes the metric.

        Args:
          outputs: names of the outputs, which have one value per row.
          weight: name of an output that tells how much a row counts, 0 for not at all; "" if all count alike.
          name: name of the metric.
        """
        super().__init__(_for_each_model(_Means), outputs=outputs, weight=weight, name=name)


class MeanBounds(metric_types.Metric):
    """Between what the mean of an output may be, judged by how much it varies from row to row.

    The bounds are one-sided, those of a normal distribution of the mean, whose standard error is that of independent
    rows: the mean of many more rows would be below `mean_at_worst`, or above `mean_at_best`, by chance alone.
    """

    def __init__(self, output: str, confidence: float):
        """Takes the name of an output with one value per row, and the probability with which each bound holds."""
        super().__init__(_for_each_model(_Bounds), output=output, confidence=confidence)


class OutputErrors(metric_types.Metric):
    """Root mean squared and mean absolute errors of outputs against the label, over rows, unweighted."""

    def __init__(self, outputs: list[str]):
        """Takes the names of the outputs, which have one value per row."""
        super().__init__(_for_each_model(_Errors), outputs=outputs)


class SharesKept(metric_types.Metric):
    """How much of a metric is kept in each situation: 1 for all of it, less if the model is worse there.

    `share_kept` is the mean of an output in a situation divided by its mean without one; for an error, the other way
    round, and for a squared error the root of that. `share_kept_at_most` is the same with a mean in the situation that
    is better by two standard errors of the difference, so that a bound on it hardly refuses a model by chance.
    """

    def __init__(self, output: str, situations: list[str]):
        """Makes the metric.

        Args:
          output: name of an output that has one value per row, such as `recall_at_10` or `squared_error`.
          situations: the situations; the output `OUTPUT_SITUATION` has the values there.
        """
        super().__init__(_for_each_model(_Shares), output=output, situations=situations)


class Gate(metric_types.Metric):
    """Stands for a metric that another one computes, so that TFMA has something to attach a threshold to.

    TFMA takes thresholds for metrics of one output, while those above are of several.
    """

    def __init__(self, name: str):
        """Takes the name of the metric; the outputs are those of the `MetricsSpec`."""
        super().__init__(_nothing, name=name)


def bounded_mean(total: float, squares: float, rows: float, confidence: float) -> tuple[float, float, float]:
    """The mean of values, and its one-sided bounds from below and from above; NaN without rows.

    Args:
      total: the sum of the values.
      squares: the sum of their squares.
      rows: how many there are.
      confidence: probability with which each of the bounds holds.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.float64(total) / rows
        error = np.sqrt(np.maximum(np.float64(squares) / rows - mean**2, 0) / rows)
    width = NormalDist().inv_cdf(confidence) * error
    return float(mean), float(mean - width), float(mean + width)


def _nothing(name: str) -> list[metric_types.MetricComputation]:
    del name
    return []


def _for_each_model(combiner: Callable[..., "_RowSums"]) -> Callable[..., list[metric_types.MetricComputation]]:
    def computations(model_names: list[str] | None = None, **settings: Any) -> list[metric_types.MetricComputation]:
        combiners = [combiner(model, **settings) for model in model_names or [""]]
        return [metric_types.MetricComputation(keys=each.keys, preprocessors=None, combiner=each) for each in combiners]

    return computations


class _RowSums(beam.CombineFn):
    """Adds up figures over rows, and makes metrics of the sums.

    An accumulator is float64 [figures].

    Attributes:
      keys: keys of all metrics and outputs.
    """

    def __init__(self, model: str, outputs: list[str], figures: int, metrics: list[tuple[str, str]]):
        """Makes the combiner.

        Args:
          model: name of the model.
          outputs: names of the outputs that are read.
          figures: number of figures of a row.
          metrics: name of each metric and of the output that it is of.
        """
        self._model, self._outputs, self._figures = model, outputs, figures
        self.keys = [metric_types.MetricKey(name, model_name=model, output_name=output) for name, output in metrics]

    def row_figures(self, values: np.ndarray, label: Any) -> np.ndarray:
        """Computes a row's figures, float64 [figures], from its outputs, float64 [outputs], and its label."""
        raise NotImplementedError

    def metrics(self, sums: np.ndarray) -> np.ndarray:
        """Computes the metrics, in the order of `keys`, from the sums of the figures over all rows."""
        raise NotImplementedError

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(self._figures)

    def add_input(self, sums: np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        predictions, label = self._select_model(element.prediction), self._select_model(element.label)
        # An earlier model that a candidate is compared with may lack an output that was added since.
        values = [predictions[output].item() if output in predictions else np.nan for output in self._outputs]
        sums += self.row_figures(np.array(values), label)
        return sums

    def _select_model(self, values: Any) -> Any:
        return values[self._model] if isinstance(values, dict) and self._model and self._model in values else values

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(self, sums: np.ndarray) -> dict[metric_types.MetricKey, float]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return dict(zip(self.keys, self.metrics(sums).tolist(), strict=True))


class _Means(_RowSums):
    def __init__(self, model: str, outputs: list[str], weight: str, name: str):
        self._weighted = bool(weight)
        read = [*outputs, weight] if weight else outputs
        super().__init__(model, read, len(outputs) + 1, [(name, output) for output in outputs])

    def row_figures(self, values: np.ndarray, label: Any) -> np.ndarray:
        del label
        if not self._weighted:
            return np.append(values, 1.0)
        weight = values[-1]
        # A row that does not count may well be NaN.
        return np.append(weight * values[:-1], weight) if weight else np.zeros(self._figures)

    def metrics(self, sums: np.ndarray) -> np.ndarray:
        return sums[:-1] / sums[-1]


class _Bounds(_RowSums):
    """The figures of a row: its value, the square of it, and 1."""

    def __init__(self, model: str, output: str, confidence: float):
        super().__init__(model, [output], 3, [(MEAN_AT_WORST, output), (MEAN_AT_BEST, output)])
        self._confidence = confidence

    def row_figures(self, values: np.ndarray, label: Any) -> np.ndarray:
        del label
        return np.array([values[0], values[0] ** 2, 1.0])

    def metrics(self, sums: np.ndarray) -> np.ndarray:
        total, squares, rows = sums
        _, worst, best = bounded_mean(total, squares, rows, self._confidence)
        return np.array([worst, best])


class _Errors(_RowSums):
    def __init__(self, model: str, outputs: list[str]):
        metrics = [(name, output) for name in (RMSE, MAE) for output in outputs]
        super().__init__(model, outputs, len(metrics) + 1, metrics)

    def row_figures(self, values: np.ndarray, label: Any) -> np.ndarray:
        errors = values - label.item()
        return np.concatenate([errors**2, np.abs(errors), [1.0]])

    def metrics(self, sums: np.ndarray) -> np.ndarray:
        squares, absolutes = np.split(sums[:-1] / sums[-1], 2)
        return np.concatenate([np.sqrt(squares), absolutes])


class _Shares(_RowSums):
    """The figures of a row: its values, own first; the squares of their differences from the own one; and 1."""

    def __init__(self, model: str, output: str, situations: list[str]):
        there = [f"{output}_{situation}" for situation in situations]
        metrics = [(name, each) for name in (SHARE_KEPT, SHARE_KEPT_AT_MOST) for each in there]
        super().__init__(model, [output, *there], 2 * len(there) + 2, metrics)
        self._is_error = output in ERRORS
        self._is_squared = output == "squared_error"

    def row_figures(self, values: np.ndarray, label: Any) -> np.ndarray:
        del label
        return np.concatenate([values, (values[1:] - values[0]) ** 2, [1.0]])

    def metrics(self, sums: np.ndarray) -> np.ndarray:
        rows, means = sums[-1], sums[:-1] / sums[-1]
        own, there, squares = np.split(means, [1, 1 + len(self.keys) // 2])
        errors = np.sqrt(np.maximum(squares - (there - own) ** 2, 0) / rows)
        better = there - 2 * errors if self._is_error else there + 2 * errors
        return np.concatenate([self._shares(own, there), self._shares(own, better)])

    def _shares(self, own: np.ndarray, there: np.ndarray) -> np.ndarray:
        shares = own / np.maximum(there, 0) if self._is_error else there / own
        # A model without a hit keeps all of them.
        shares = np.where((there == own) | ((own == 0) & (not self._is_error)), 1.0, shares)
        return np.sqrt(shares) if self._is_squared else shares
