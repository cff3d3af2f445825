"""What the Evaluator measures, and the thresholds it applies."""

import json

import pytest

from components.evaluation.names import AT_BEST, AT_WORST, MEAN_AT_BEST, MEAN_AT_WORST
from components.evaluation.output_metrics import LIKED_MEAN, MEAN, SHARE_KEPT_AT_MOST
from pipeline.config import EvaluationConfig
from pipeline.gates import eval_config, recommender_eval_config
from trainers.export.situations import ASKED_LATER
from trainers.hyperparameters import DCNHyperparameters, Task
from trainers.registry import MODELS


def gates(config):
    """The lower bound and the bound of the change of each gate, None for one that it has not, by metric and output."""
    found = {}
    for spec in config.metrics_specs:
        for metric in spec.metrics:
            for gate in metric.per_slice_thresholds:
                (overall,) = gate.slicing_specs
                assert not overall.feature_keys
                assert not overall.feature_values
                name = json.loads(metric.config)["name"] if metric.config else MEAN
                threshold = gate.threshold
                value = threshold.value_threshold if threshold.HasField("value_threshold") else None
                change = threshold.change_threshold if threshold.HasField("change_threshold") else None
                key = (name, spec.output_names[0])
                assert key not in found
                found[key] = (value and value.lower_bound.value, change and change.absolute.value)
    return found


def kept(output, share):
    return {(SHARE_KEPT_AT_MOST, f"{output}_{later}"): (share, None) for later in ASKED_LATER}


@pytest.mark.parametrize("model", MODELS)
def test_gates_are_on_the_overall_figures_with_the_configured_bounds(model):
    evaluation = EvaluationConfig(
        recall_margin=0.25, recall_tolerance=0.5, mse_margin=0.125, mse_tolerance=0.75, share_kept_later=0.625
    )
    tasks = MODELS[model].hyperparameters().tasks
    expected = {
        "retrieval": {
            (MEAN, "recall_at_10_filtered_gain"): (0.25, None),
            (AT_BEST, "recall_at_10_filtered"): (None, -0.5),
            **kept("recall_at_10_filtered", 0.625),
        },
        "rating": {
            (MEAN, "squared_error_gain"): (0.125, None),
            (AT_BEST, "squared_error"): (None, -0.75),
            **kept("squared_error", 0.625),
        },
    }
    assert gates(eval_config(tasks, evaluation)) == {
        key: bounds for task in tasks for key, bounds in expected[task].items()
    }


def test_the_gates_of_likes():
    tasks = DCNHyperparameters(objective="like").tasks
    evaluation = EvaluationConfig(log_loss_margin=0.25, log_loss_tolerance=0.5, share_kept_later=0.625)
    assert gates(eval_config(tasks, evaluation)) == {
        (MEAN, "log_loss_gain"): (0.25, None),
        (AT_BEST, "log_loss"): (None, -0.5),
        **kept("log_loss", 0.625),
    }


def test_the_gates_of_the_recommender_are_on_its_final_list():
    evaluation = EvaluationConfig(
        popularity_margin=0.25,
        recall_tolerance=0.5,
        retrieval_tolerance=0.125,
        liked_margin=0.375,
        liked_tolerance=0.75,
        share_kept_later=0.625,
    )
    assert gates(recommender_eval_config(evaluation)) == {
        (MEAN_AT_BEST, "recall_at_10_over_retrieval"): (-0.125, None),
        (MEAN, "recall_at_10_over_popularity"): (0.25, None),
        (LIKED_MEAN, "ndcg_at_10_over_retrieval"): (0.375, None),
        (LIKED_MEAN, "ndcg_at_10_over_popularity"): (0.25, None),
        (AT_BEST, "recall_at_10"): (None, -0.5),
        (f"liked_{AT_BEST}", "ndcg_at_10"): (None, -0.75),
        **kept("recall_at_10", 0.625),
    }


@pytest.mark.parametrize("task", Task)
def test_where_nothing_may_be_undecided_the_worst_case_is_what_is_bounded(task):
    bounds = gates(eval_config([task], EvaluationConfig(undecided="refuse")))
    compared = {name for name, output in bounds if bounds[name, output][1] is not None}
    assert compared == {AT_WORST}
    of_lists = gates(recommender_eval_config(EvaluationConfig(undecided="refuse")))
    assert (MEAN_AT_WORST, "recall_at_10_over_retrieval") in of_lists
    assert (MEAN_AT_BEST, "recall_at_10_over_retrieval") not in of_lists


def test_margins_are_positive_unless_they_are_set():
    defaults = EvaluationConfig()
    assert min(defaults.recall_margin, defaults.mse_margin, defaults.log_loss_margin, defaults.popularity_margin) > 0


@pytest.mark.parametrize("recommender", [False, True])
def test_configured_slices_are_measured(recommender):
    evaluation = EvaluationConfig(slices=[["gender"], ["age", "gender"]])
    config = recommender_eval_config(evaluation) if recommender else eval_config([Task.RATING], evaluation)
    assert [list(spec.feature_keys) for spec in config.slicing_specs] == [[], ["gender"], ["age", "gender"]]
