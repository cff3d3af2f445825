"""What the Evaluator measures on the test split, and the thresholds that a model must meet to be blessed."""

import json
from collections.abc import Sequence
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.champion_metrics import ChangesOfOutput
from components.evaluation.names import AT_BEST, AT_WORST, LIKED, MEAN_AT_BEST, MEAN_AT_WORST
from components.evaluation.output_metrics import (
    HIT_MEAN,
    LIKED_MEAN,
    MEAN,
    SHARE_KEPT_AT_MOST,
    Gate,
    MeanBounds,
    MeanOutputs,
    OutputErrors,
    SharesKept,
)
from components.recommender.evaluation import (
    COMPARED_METRICS,
    COMPARED_WITH,
    GROUP_PREFIX,
    IS_HIT,
    IS_LIKED,
    LIST_METRICS,
    LIST_PREFIXES,
    RATING_ERROR,
)
from pipeline.config import EvaluationConfig
from trainers.export.like_head import LIKED as LIKED_LABEL
from trainers.export.like_head import WEIGHT
from trainers.export.metrics import KS
from trainers.export.situations import ASKED_LATER, SITUATIONS
from trainers.hyperparameters import Task
from transform.features import LABEL

_TOP_K_METRICS = tuple(
    f"{name}{suffix}" for suffix in ("", "_filtered") for name in (*(f"recall_at_{k}" for k in KS), "ndcg_at_10")
)
_POPULARITY_METRICS = (
    *("popularity_recall_at_10", "popularity_recall_at_10_filtered", "popularity_ndcg_at_10_filtered"),
    "popularity_by_group_recall_at_10_filtered",
)


def eval_config(tasks: Sequence[Task], evaluation: EvaluationConfig) -> config_pb2.EvalConfig:
    """The Evaluator's configuration for a model.

    The value thresholds are on gains: the mean, over the test rows, of how much better the model is than the trivial
    baseline that is fitted to the same train rows and exported beside it; and on the share of its quality that it keeps
    when it is asked later. The change thresholds compare the model itself with the champion, the model that was blessed
    last, and not their gains: the champion's baseline was fitted to other rows.

    For likes, the model's signature `labels` gives the label and the weight of each test row: rows of 3 stars have
    weight 0, so that they count in no figure, not even in the number of rows.

    Args:
      tasks: what the model predicts.
      evaluation: bounds and slices.
    """
    metrics = [spec for task in tasks for spec in _METRICS[task](evaluation)]
    return _eval_config(metrics, evaluation, weighted=Task.LIKE in tasks)


def recommender_eval_config(evaluation: EvaluationConfig) -> config_pb2.EvalConfig:
    """The Evaluator's configuration for the recommender, whose final list is what is measured.

    Figures are means over all rows, as the list should have what people watch; and, as `liked_mean`, over the rows of 4
    and 5 stars, as it should rather have what they like. The value thresholds compare the list with the retriever's own
    order and with popularity, the change thresholds with the champion's list. What the list may lose, against either,
    is judged with the configured confidence; what it has to gain, it has to gain on these rows.

    Args:
      evaluation: bounds and slices.
    """
    lists = [f"{prefix}{name}" for prefix in LIST_PREFIXES for name in LIST_METRICS]
    gains = [f"{name}_over_{other}" for name in COMPARED_METRICS for other in COMPARED_WITH]
    in_situations = [f"recall_at_10_{situation}" for situation in SITUATIONS]
    liked = {"weight": IS_LIKED, "name": LIKED_MEAN}
    lost, may_be_undecided = "recall_at_10_over_retrieval", evaluation.undecided == "bless"
    metrics = [
        _metric(MeanOutputs, outputs=[*lists, *gains, *in_situations, f"{GROUP_PREFIX}recall_at_10"]),
        _metric(MeanOutputs, outputs=[*lists, *gains], **liked),
        _metric(MeanOutputs, outputs=[RATING_ERROR], weight=IS_HIT, name=HIT_MEAN),
        _metric(MeanBounds, output=lost, confidence=evaluation.confidence),
        _threshold(lost, MEAN_AT_BEST if may_be_undecided else MEAN_AT_WORST, at_least=-evaluation.retrieval_tolerance),
        _threshold("recall_at_10_over_popularity", MEAN, at_least=evaluation.popularity_margin),
        _threshold("ndcg_at_10_over_retrieval", LIKED_MEAN, at_least=evaluation.liked_margin),
        _threshold("ndcg_at_10_over_popularity", LIKED_MEAN, at_least=evaluation.popularity_margin),
        *_no_worse("recall_at_10", evaluation),
        *_no_worse("ndcg_at_10", evaluation, weight=IS_LIKED, prefix=LIKED),
        *_kept_when_asked_later("recall_at_10", evaluation),
    ]
    return _eval_config(metrics, evaluation)


def _eval_config(
    metrics: list[config_pb2.MetricsSpec], evaluation: EvaluationConfig, weighted: bool = False
) -> config_pb2.EvalConfig:
    metrics.append(config_pb2.MetricsSpec(metrics=[config_pb2.MetricConfig(class_name="ExampleCount")]))
    if weighted:
        for spec in metrics:
            # Metrics of ours know by an output which rows count, and TFMA refuses to hand them its weights.
            spec.example_weights.weighted = not spec.example_weights.unweighted
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
    main, gain = "recall_at_10_filtered", "recall_at_10_filtered_gain"
    in_situations = [f"{main}_{situation}" for situation in SITUATIONS]
    return [
        _metric(MeanOutputs, outputs=[*_TOP_K_METRICS, *_POPULARITY_METRICS, gain, *in_situations]),
        _threshold(gain, MEAN, at_least=evaluation.recall_margin),
        *_no_worse(main, evaluation),
        *_kept_when_asked_later(main, evaluation),
    ]


def _rating_metrics(evaluation: EvaluationConfig) -> list[config_pb2.MetricsSpec]:
    main, gain = "squared_error", "squared_error_gain"
    return [
        _metric(OutputErrors, outputs=["predicted_rating", "bias_predicted_rating"]),
        _metric(MeanOutputs, outputs=[gain, main, *(f"{main}_{situation}" for situation in SITUATIONS)]),
        _threshold(gain, MEAN, at_least=evaluation.mse_margin),
        *_no_worse(main, evaluation),
        *_kept_when_asked_later(main, evaluation),
    ]


def _like_metrics(evaluation: EvaluationConfig) -> list[config_pb2.MetricsSpec]:
    gain = config_pb2.MetricConfig(class_name="MeanPrediction")
    gain.per_slice_thresholds.append(_overall(_at_least(evaluation.log_loss_margin)))
    return [
        *(_measured(name, "AUC", "BinaryCrossEntropy") for name in ("like_probability", "bias_like_probability")),
        config_pb2.MetricsSpec(output_names=["log_loss_gain"], metrics=[gain]),
        *_no_worse("log_loss", evaluation, weight=WEIGHT),
        *_kept_when_asked_later("log_loss", evaluation),
    ]


_METRICS = {Task.RETRIEVAL: _retrieval_metrics, Task.RATING: _rating_metrics, Task.LIKE: _like_metrics}


def _metric(metric_type: type, **settings: Any) -> config_pb2.MetricsSpec:
    """One metric that reads several outputs."""
    name, module = metric_type.__name__, metric_type.__module__
    metric = config_pb2.MetricConfig(class_name=name, module=module, config=json.dumps(settings))
    spec = config_pb2.MetricsSpec(metrics=[metric])
    spec.example_weights.unweighted = True
    return spec


def _kept_when_asked_later(output: str, evaluation: EvaluationConfig) -> list[config_pb2.MetricsSpec]:
    """How much of its quality a model keeps in each situation, with thresholds for those of being asked later."""
    return [
        _metric(SharesKept, output=output, situations=list(SITUATIONS)),
        *(
            _threshold(f"{output}_{later}", SHARE_KEPT_AT_MOST, at_least=evaluation.share_kept_later)
            for later in ASKED_LATER
        ),
    ]


def _no_worse(
    output: str, evaluation: EvaluationConfig, weight: str = "", prefix: str = ""
) -> list[config_pb2.MetricsSpec]:
    """By how much an output is better than the champion's, with a threshold: not worse by more than a tolerance.

    The threshold is on a bound of the change and not on the change itself. With `undecided: bless`, a candidate is
    refused if it is worse with the wanted confidence; with `refuse`, unless it is no worse with that confidence.

    Args:
      output: name of an output that has one value per row.
      evaluation: bounds.
      weight: name of an output that tells which rows count; "" if all do.
      prefix: goes before the names of the metrics.
    """
    settings = {"output": output, "confidence": evaluation.confidence, "weight": weight, "prefix": prefix}
    bound = _metric(Gate, name=prefix + (AT_BEST if evaluation.undecided == "bless" else AT_WORST))
    bound.output_names.append(output)
    threshold = config_pb2.MetricThreshold()
    threshold.change_threshold.direction = tfma.MetricDirection.HIGHER_IS_BETTER
    threshold.change_threshold.absolute.value = -evaluation.tolerances[prefix + output]
    bound.metrics[0].per_slice_thresholds.append(_overall(threshold))
    return [_metric(ChangesOfOutput, **settings), bound]


def _threshold(output: str, metric: str, at_least: float) -> config_pb2.MetricsSpec:
    """A threshold on a metric of ours that is computed elsewhere in the configuration."""
    spec = _metric(Gate, name=metric)
    spec.output_names.append(output)
    spec.metrics[0].per_slice_thresholds.append(_overall(_at_least(at_least)))
    return spec


def _at_least(value: float) -> config_pb2.MetricThreshold:
    threshold = config_pb2.MetricThreshold()
    threshold.value_threshold.lower_bound.value = value
    return threshold


def _overall(threshold: config_pb2.MetricThreshold) -> config_pb2.PerSliceMetricThreshold:
    # For all test rows together: a threshold without slices would hold for each slice, and small ones are noisy.
    return config_pb2.PerSliceMetricThreshold(slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold)


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
        label_key=LIKED_LABEL,
        example_weight_key=WEIGHT,
    )
