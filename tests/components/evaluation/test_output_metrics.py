"""Metrics of many outputs at once equal NumPy's values and those of TFMA's own metrics of a single output."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.metrics.calibration import MeanPrediction
from tensorflow_model_analysis.metrics.mean_regression_error import MeanAbsoluteError

from components.evaluation.output_metrics import MAE, RMSE, MeanOutputs, OutputErrors
from pipeline.config import BeamConfig

OUTPUTS = ["hit", "gain"]
LABEL = 1.0
ROWS = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)


def inputs(*models):
    """Yields the metric inputs of each of ROWS; with two models, the second's outputs are twice the first's."""
    for row in ROWS:
        outputs = [{name: np.array([scale * x]) for name, x in zip(OUTPUTS, row, strict=True)} for scale in (1, 2)]
        predictions = dict(zip(models, outputs, strict=False)) if models else outputs[0]
        yield metric_types.StandardMetricInputs(
            label=np.array([LABEL]), prediction=predictions, example_weight=np.array([1.0])
        )


def measure(combiner, rows):
    """Accumulates rows in two parts and merges these, as Beam does."""
    sums = []
    for part in (rows[:30], rows[30:]):
        accumulator = combiner.create_accumulator()
        for row in part:
            accumulator = combiner.add_input(accumulator, row)
        sums.append(accumulator)
    # This is an iterator because TFMA's own mean absolute error counts the first part of a list twice.
    return combiner.extract_output(combiner.merge_accumulators(iter(sums)))


def test_means_are_those_of_the_rows():
    (computation,) = MeanOutputs(OUTPUTS).computations()
    values = measure(computation.combiner, list(inputs()))
    assert [key.output_name for key in values] == OUTPUTS
    np.testing.assert_allclose(list(values.values()), ROWS.mean(axis=0), rtol=1e-5)


def test_each_model_has_its_own_means():
    computations = MeanOutputs(OUTPUTS).computations(model_names=["candidate", "baseline"])
    rows = list(inputs("candidate", "baseline"))
    for computation, scale in zip(computations, (1, 2), strict=True):
        np.testing.assert_allclose(
            list(measure(computation.combiner, rows).values()), scale * ROWS.mean(axis=0), rtol=1e-5
        )


@pytest.mark.parametrize("output", OUTPUTS)
def test_tfma_has_the_same_value_under_the_same_key(output):
    stock, derived = MeanPrediction().computations(output_names=[output])
    (key,) = derived.keys
    values = measure(MeanOutputs(OUTPUTS).computations()[0].combiner, list(inputs()))
    assert derived.result(measure(stock.combiner, list(inputs())))[key] == pytest.approx(values[key], rel=1e-5)


def test_errors_are_those_of_the_rows():
    (computation,) = OutputErrors(OUTPUTS).computations()
    values = measure(computation.combiner, list(inputs()))
    assert [(key.name, key.output_name) for key in values] == [(name, out) for name in (RMSE, MAE) for out in OUTPUTS]
    expected = [*np.sqrt(np.mean((ROWS - LABEL) ** 2, axis=0)), *np.mean(np.abs(ROWS - LABEL), axis=0)]
    np.testing.assert_allclose(list(values.values()), expected, rtol=1e-5)


def test_each_model_has_its_own_errors_against_the_label_they_share():
    computations = OutputErrors(OUTPUTS).computations(model_names=["candidate", "baseline"])
    rows = list(inputs("candidate", "baseline"))
    for computation, scale in zip(computations, (1, 2), strict=True):
        expected = np.sqrt(np.mean((scale * ROWS - LABEL) ** 2, axis=0))
        values = measure(computation.combiner, rows)
        np.testing.assert_allclose([values[key] for key in computation.keys[:2]], expected, rtol=1e-5)


@pytest.mark.parametrize("output", OUTPUTS)
def test_tfma_has_the_same_error_under_the_same_key(output):
    (stock,) = MeanAbsoluteError().computations(output_names=[output])
    (key,) = stock.keys
    values = measure(OutputErrors(OUTPUTS).computations()[0].combiner, list(inputs()))
    assert measure(stock.combiner, list(inputs()))[key] == pytest.approx(values[key], rel=1e-5)


def test_the_mean_of_no_rows_is_nan():
    combiner = MeanOutputs(OUTPUTS).computations()[0].combiner
    assert all(np.isnan(value) for value in combiner.extract_output(combiner.create_accumulator()).values())


def test_the_combiner_runs_in_beam():
    combiner = MeanOutputs(OUTPUTS).computations()[0].combiner
    with beam.Pipeline(options=PipelineOptions(BeamConfig().args())) as pipeline:
        means = pipeline | beam.Create([1]) | beam.FlatMap(lambda _: list(inputs())) | beam.CombineGlobally(combiner)
        means | beam.Map(lambda values: [float(value) for value in values.values()]) | beam.Map(_check_means)


def _check_means(values):
    np.testing.assert_allclose(values, ROWS.mean(axis=0), rtol=1e-5)
