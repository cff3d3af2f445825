"""What the Evaluator measures, and the thresholds it applies."""

import pytest

from pipeline.config import EvaluationConfig
from pipeline.gates import eval_config
from trainers.hyperparameters import Task
from trainers.registry import MODELS


@pytest.mark.parametrize("model", MODELS)
def test_gates_are_on_the_overall_figures_with_the_configured_bounds(model):
    evaluation = EvaluationConfig(recall_margin=0.25, recall_tolerance=0.5, mse_margin=0.125, mse_tolerance=0.75)
    tasks = MODELS[model].hyperparameters().tasks
    gates = {
        spec.output_names[0]: gate
        for spec in eval_config(tasks, evaluation).metrics_specs
        for metric in spec.metrics
        for gate in metric.per_slice_thresholds
    }
    expected = {
        "retrieval": {"recall_at_10_filtered_gain": (0.25, -0.5)},
        "rating": {"squared_error_gain": (0.125, -0.75)},
    }
    assert {
        name: (
            gate.threshold.value_threshold.lower_bound.value,
            gate.threshold.change_threshold.absolute.value,
        )
        for name, gate in gates.items()
    } == {name: bounds for task in tasks for name, bounds in expected[task].items()}
    for gate in gates.values():
        (overall,) = gate.slicing_specs
        assert not overall.feature_keys
        assert not overall.feature_values


def test_configured_slices_are_measured():
    slices = eval_config([Task.RATING], EvaluationConfig(slices=[["gender"], ["age", "gender"]])).slicing_specs
    assert [list(spec.feature_keys) for spec in slices] == [[], ["gender"], ["age", "gender"]]
