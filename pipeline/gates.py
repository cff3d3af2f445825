"""What the Evaluator measures on the test split, and the thresholds that a model must meet to be blessed."""

import json
from collections.abc import Sequence

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.output_metrics import MeanOutputs, OutputErrors
from pipeline.config import EvaluationConfig
from trainers.export.like_head import LIKED, WEIGHT
from trainers.export.metrics import KS
from trainers.hyperparameters import Task
from transform.features import LABEL

_TOP_K_METRICS = tuple(
    f"{name}{suffix}" for suffix in ("", "_filtered") for name in (*(f"recall_at_{k}" for k in KS), "ndcg_at_10")
)
_POPULARITY_METRICS = ("popularity_recall_at_10", "popularity_recall_at_10_filtered", "popularity_ndcg_at_10_filtered")


def eval_config(tasks: Sequence[Task], evaluation: EvaluationConfig) -> config_pb2.EvalConfig:
    """The Evaluator's configuration for a model.

    The value thresholds are on gains: the mean, over the test rows, of how much better the model is than the trivial
    baseline that is exported beside it. The change thresholds compare it with the latest blessed model.

    For likes, the model's signature `labels` gives the label and the weight of each test row: rows of 3 stars have
    weight 0, so that they count in no figure, not even in the number of rows.

    Args:
      tasks: what the model predicts.
      evaluation: bounds and slices.
    """
    metrics = [spec for task in tasks for spec in _METRICS[task](evaluation)]
    metrics.append(config_pb2.MetricsSpec(metrics=[config_pb2.MetricConfig(class_name="ExampleCount")]))
    weighted = Task.LIKE in tasks
    if weighted:
        for spec in metrics:
            spec.example_weights.weighted = True
    options = config_pb2.Options()
    options.include_default_metrics.value = False
    return config_pb2.EvalConfig(
        model_specs=[_like_spec() if weighted else _rating_spec()],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=keys) for keys in evaluation.slices),
        ],
        metrics_specs=metrics,
        options=options,
    )


def _retrieval_metrics(evaluation: EvaluationConfig) -> list[config_pb2.MetricsSpec]:
    return [
        _metric_of_outputs(MeanOutputs, *_TOP_K_METRICS, *_POPULARITY_METRICS),
        _gate("recall_at_10_filtered_gain", evaluation.recall_margin, evaluation.recall_tolerance),
    ]


def _rating_metrics(evaluation: EvaluationConfig) -> list[config_pb2.MetricsSpec]:
    return [
        _metric_of_outputs(OutputErrors, "predicted_rating", "bias_predicted_rating"),
        _gate("squared_error_gain", evaluation.mse_margin, evaluation.mse_tolerance),
    ]


def _like_metrics(evaluation: EvaluationConfig) -> list[config_pb2.MetricsSpec]:
    return [
        *(_measured(name, "AUC", "BinaryCrossEntropy") for name in ("like_probability", "bias_like_probability")),
        _gate("log_loss_gain", evaluation.log_loss_margin, evaluation.log_loss_tolerance),
    ]


_METRICS = {Task.RETRIEVAL: _retrieval_metrics, Task.RATING: _rating_metrics, Task.LIKE: _like_metrics}


def _metric_of_outputs(metric_type: type, *outputs: str) -> config_pb2.MetricsSpec:
    """One metric that reads several outputs, without thresholds: TFMA has these for metrics of one output only."""
    settings = json.dumps({"outputs": outputs})
    metric = config_pb2.MetricConfig(class_name=metric_type.__name__, module=metric_type.__module__, config=settings)
    return config_pb2.MetricsSpec(metrics=[metric])


def _mean(output: str, threshold: config_pb2.MetricThreshold | None = None) -> config_pb2.MetricsSpec:
    metric = config_pb2.MetricConfig(class_name="MeanPrediction")
    if threshold is not None:
        # For all test rows together: a threshold without slices would hold for each slice, and small ones are noisy.
        overall = config_pb2.PerSliceMetricThreshold(slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold)
        metric.per_slice_thresholds.append(overall)
    return config_pb2.MetricsSpec(output_names=[output], metrics=[metric])


def _gate(output: str, margin: float, tolerance: float) -> config_pb2.MetricsSpec:
    threshold = config_pb2.MetricThreshold(
        value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": margin}),
        change_threshold=config_pb2.GenericChangeThreshold(
            direction=tfma.MetricDirection.HIGHER_IS_BETTER, absolute={"value": -tolerance}
        ),
    )
    return _mean(output, threshold)


def _measured(output: str, *metrics: str) -> config_pb2.MetricsSpec:
    return config_pb2.MetricsSpec(
        output_names=[output], metrics=[config_pb2.MetricConfig(class_name=metric) for metric in metrics]
    )


def _rating_spec() -> config_pb2.ModelSpec:
    return config_pb2.ModelSpec(signature_name="evaluate", label_key=LABEL)


def _like_spec() -> config_pb2.ModelSpec:
    return config_pb2.ModelSpec(
        signature_name="evaluate",
        preprocessing_function_names=["labels"],
        label_key=LIKED,
        example_weight_key=WEIGHT,
    )
