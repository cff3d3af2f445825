"""Metrics of many outputs at once equal NumPy's values and those of TFMA's own metrics of a single output."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.metrics.calibration import MeanPrediction
from tensorflow_model_analysis.metrics.mean_regression_error import MeanAbsoluteError

from components.evaluation.names import MEAN_AT_BEST, MEAN_AT_WORST
from components.evaluation.output_metrics import (
    LIKED_MEAN,
    MAE,
    RMSE,
    SHARE_KEPT,
    SHARE_KEPT_AT_MOST,
    MeanBounds,
    MeanOutputs,
    OutputErrors,
    SharesKept,
)
from pipeline.beam_config import BeamConfig

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


def rows_of(*models, **columns):
    """Metric inputs from columns of outputs; with models, the first has them all and each other one lacks the last."""
    for values in zip(*columns.values(), strict=True):
        outputs = {name: np.array([x]) for name, x in zip(columns, values, strict=True)}
        fewer = {name: outputs[name] for name in list(columns)[:-1]}
        predictions = {model: fewer if place else outputs for place, model in enumerate(models)} if models else outputs
        yield metric_types.StandardMetricInputs(
            label=np.array([LABEL]), prediction=predictions, example_weight=np.array([1.0])
        )


def measured(metric, *models, **columns):
    """The values of a metric, by name, model and output."""
    return {
        (key.name, key.model_name, key.output_name): value
        for computation in metric.computations(**({"model_names": list(models)} if models else {}))
        for key, value in measure(computation.combiner, list(rows_of(*models, **columns))).items()
    }


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


def test_the_bounds_of_a_mean_hold_as_often_as_they_should():
    rng = np.random.default_rng(0)
    misses = {MEAN_AT_WORST: 0, MEAN_AT_BEST: 0}
    for _ in range(400):
        values = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.8, 0.1], size=200)
        bounds = measured(MeanBounds("hit", 0.9), hit=values)
        misses[MEAN_AT_WORST] += bounds[MEAN_AT_WORST, "", "hit"] > 0
        misses[MEAN_AT_BEST] += bounds[MEAN_AT_BEST, "", "hit"] < 0
        width = 1.2815515655446004 * values.std() / np.sqrt(len(values))
        assert bounds[MEAN_AT_WORST, "", "hit"] == pytest.approx(values.mean() - width)
        assert bounds[MEAN_AT_BEST, "", "hit"] == pytest.approx(values.mean() + width)
    # Each is missed in a tenth of the cases: 40 of 400, with a standard deviation of 6.
    assert all(16 <= count <= 64 for count in misses.values())


def test_the_combiner_runs_in_beam():
    combiner = MeanOutputs(OUTPUTS).computations()[0].combiner
    with beam.Pipeline(options=PipelineOptions(BeamConfig().args())) as pipeline:
        means = pipeline | beam.Create([1]) | beam.FlatMap(lambda _: list(inputs())) | beam.CombineGlobally(combiner)
        means | beam.Map(lambda values: [float(value) for value in values.values()]) | beam.Map(_check_means)


def _check_means(values):
    np.testing.assert_allclose(values, ROWS.mean(axis=0), rtol=1e-5)


WEIGHTS = np.random.default_rng(1).choice([0.0, 1.0, 2.5], size=len(ROWS))


def test_weighted_means_are_those_of_the_rows_that_count():
    hit, gain = ROWS.T.astype(np.float64)
    # What a row that does not count says of an output is of no matter.
    hit = np.where(WEIGHTS > 0, hit, np.nan)
    found = measured(MeanOutputs(OUTPUTS, weight="liked", name=LIKED_MEAN), hit=hit, gain=gain, liked=WEIGHTS)
    counts = WEIGHTS > 0
    assert found == {
        (LIKED_MEAN, "", "hit"): pytest.approx(np.average(hit[counts], weights=WEIGHTS[counts])),
        (LIKED_MEAN, "", "gain"): pytest.approx(np.average(gain, weights=WEIGHTS)),
    }


def test_a_weighted_mean_is_nan_if_a_row_that_counts_is():
    hit = np.where(np.arange(len(ROWS)) == np.flatnonzero(WEIGHTS)[0], np.nan, 1.0)
    found = measured(MeanOutputs(["hit", "gain"], weight="liked"), hit=hit, gain=ROWS[:, 1], liked=WEIGHTS)
    values = list(found.values())
    assert np.isnan(values[0])
    assert np.isfinite(values[1])


@pytest.mark.parametrize("rows", [0, 5])
def test_a_weighted_mean_is_nan_if_no_row_counts(rows):
    found = measured(MeanOutputs(["hit"], weight="liked"), hit=np.ones(rows), liked=np.zeros(rows))
    assert np.isnan(list(found.values())).all()


def test_an_output_may_be_measured_with_and_without_weights():
    metrics = [MeanOutputs(["hit"]), MeanOutputs(["hit"], weight="liked", name=LIKED_MEAN)]
    assert len({key for metric in metrics for each in metric.computations() for key in each.keys}) == 2


def test_the_share_that_is_kept_of_a_mean():
    hit, later, new = np.random.default_rng(2).random((3, 100))
    found = measured(SharesKept("hit", ["later", "new"]), hit=hit, hit_later=later, hit_new=new)
    assert found == {
        (SHARE_KEPT, "", "hit_later"): pytest.approx(later.mean() / hit.mean()),
        (SHARE_KEPT, "", "hit_new"): pytest.approx(new.mean() / hit.mean()),
        (SHARE_KEPT_AT_MOST, "", "hit_later"): pytest.approx((later.mean() + two_errors(later - hit)) / hit.mean()),
        (SHARE_KEPT_AT_MOST, "", "hit_new"): pytest.approx((new.mean() + two_errors(new - hit)) / hit.mean()),
    }


def two_errors(differences):
    return 2 * differences.std() / np.sqrt(len(differences))


@pytest.mark.parametrize(("output", "power"), [("squared_error", 0.5), ("log_loss", 1.0)])
def test_an_error_that_is_larger_keeps_less(output, power):
    rng = np.random.default_rng(3)
    now, later = rng.random(100), 2 + rng.random(100)
    found = measured(SharesKept(output, ["later"]), **{output: now, f"{output}_later": later})
    expected = (now.mean() / later.mean()) ** power
    assert expected < 1
    at_most = (now.mean() / (later.mean() - two_errors(later - now))) ** power
    assert found == {
        (SHARE_KEPT, "", f"{output}_later"): pytest.approx(expected),
        (SHARE_KEPT_AT_MOST, "", f"{output}_later"): pytest.approx(at_most),
    }


@pytest.mark.parametrize("output", ["hit", "squared_error", "log_loss"])
def test_a_model_without_a_hit_or_an_error_keeps_all(output):
    nothing = np.zeros(5)
    found = measured(SharesKept(output, ["later"]), **{output: nothing, f"{output}_later": nothing})
    assert list(found.values()) == [1.0, 1.0]


def test_a_model_that_has_hits_in_a_situation_alone_keeps_all():
    found = measured(SharesKept("hit", ["later"]), hit=np.zeros(5), hit_later=np.ones(5))
    assert list(found.values()) == [1.0, 1.0]


@pytest.mark.parametrize(
    "metric",
    [
        MeanOutputs(["hit", "gain"]),
        MeanOutputs(["hit", "gain"], weight="hit"),
        SharesKept("hit", ["later", "new"]),
    ],
)
def test_an_output_that_an_earlier_model_lacks_is_nan_for_that_model_alone(metric):
    names = ("hit", "hit_later", "hit_new") if isinstance(metric, SharesKept) else ("hit", "gain")
    columns = dict(zip(names, np.random.default_rng(4).random((len(names), 20)), strict=True))
    found = measured(metric, "candidate", "baseline", **columns)
    missing = {(model, output) for (_, model, output), value in found.items() if np.isnan(value)}
    assert missing == {("baseline", names[-1])}


def test_a_weight_that_an_earlier_model_lacks_makes_its_means_nan():
    found = measured(
        MeanOutputs(["hit"], weight="liked"), "candidate", "baseline", hit=np.ones(3), liked=np.array([0.0, 1.0, 1.0])
    )
    assert [value for (_, model, _), value in found.items() if model == "candidate"] == [1.0]
    assert np.isnan([value for (_, model, _), value in found.items() if model == "baseline"]).all()
