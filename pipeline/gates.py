"""What the Evaluator measures on the test split, and what a model must reach to be blessed."""

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from pipeline.config import EvaluationConfig
from trainers.metrics import KS
from transform.features import LABEL

RETRIEVAL = "retrieval"
RATING = "rating"

TASKS = {"dcn": (RATING,), "retrieval": (RETRIEVAL,), "ranking": (RATING,), "joint": (RETRIEVAL, RATING)}

_TOP_K_METRICS = tuple(
    f"{name}{suffix}" for suffix in ("", "_filtered") for name in (*(f"recall_at_{k}" for k in KS), "ndcg_at_10")
)
_POPULARITY_METRICS = ("popularity_recall_at_10", "popularity_recall_at_10_filtered", "popularity_ndcg_at_10_filtered")


def eval_config(model: str, evaluation: EvaluationConfig) -> config_pb2.EvalConfig:
    """The Evaluator's configuration for a model.

    The thresholds are on gains: the mean, over the test rows, of how much better the model is than the trivial baseline
    that is exported beside it. The change thresholds hold it against the latest blessed model.
    """
    metrics: list[config_pb2.MetricsSpec] = []
    if RETRIEVAL in TASKS[model]:
        metrics += [_mean(name) for name in (*_TOP_K_METRICS, *_POPULARITY_METRICS)]
        metrics.append(_gate("recall_at_10_filtered_gain", evaluation.recall_margin, evaluation.recall_tolerance))
    if RATING in TASKS[model]:
        metrics += [_errors(name) for name in ("predicted_rating", "bias_predicted_rating")]
        metrics.append(_gate("squared_error_gain", evaluation.mse_margin, evaluation.mse_tolerance))
    metrics.append(config_pb2.MetricsSpec(metrics=[config_pb2.MetricConfig(class_name="ExampleCount")]))
    options = config_pb2.Options()
    options.include_default_metrics.value = False
    return config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(signature_name="evaluate", label_key=LABEL)],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=keys) for keys in evaluation.slices),
        ],
        metrics_specs=metrics,
        options=options,
    )


def _mean(output: str, threshold: config_pb2.MetricThreshold | None = None) -> config_pb2.MetricsSpec:
    metric = config_pb2.MetricConfig(class_name="MeanPrediction")
    if threshold is not None:
        # On all test rows alone: a threshold without slices holds for each slice, and small ones are noisy.
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


def _errors(output: str) -> config_pb2.MetricsSpec:
    return config_pb2.MetricsSpec(
        output_names=[output],
        metrics=[
            config_pb2.MetricConfig(class_name="RootMeanSquaredError"),
            config_pb2.MetricConfig(class_name="MeanAbsoluteError"),
        ],
    )
