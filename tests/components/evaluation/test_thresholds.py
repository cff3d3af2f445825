"""TFMA checks the thresholds that `Gate` attaches to metrics of many outputs, of values and of changes."""

import json
from pathlib import Path
from statistics import NormalDist

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_model_analysis.proto import config_pb2
from tfx_bsl.tfxio import tensor_adapter, tf_example_record

from components.evaluation.extractors import custom_extractors
from pipeline.beam_config import BeamConfig
from pipeline.config import EvaluationConfig
from pipeline.gates import eval_config, recommender_eval_config
from pipeline.local.report import model_summary, read_evaluation, read_refusals
from pipeline.local.tables import kept_table, models_table, recommender_table
from trainers.export.situations import ASKED_LATER, SITUATIONS
from trainers.hyperparameters import DCNHyperparameters, Task

pytestmark = pytest.mark.component

SCHEMA = text_format.Parse(
    """
    feature { name: "gender" type: BYTES shape { dim { size: 1 } } presence { min_fraction: 1 } }
    feature { name: "rating" type: FLOAT shape { dim { size: 1 } } presence { min_fraction: 1 } }
    """,
    schema_pb2.Schema(),
)
STARS = np.tile([2.0, 3.0, 4.0, 5.0], 10)
LIKED = STARS >= 4
EVALUATION = EvaluationConfig(slices=[["gender"]], recall_tolerance=0.1, liked_tolerance=0.1)


def example(stars: float) -> bytes:
    features = {
        "gender": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"F"])),
        "rating": tf.train.Feature(float_list=tf.train.FloatList(value=[stars])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def model(folder: Path, outputs: dict[str, tuple[float, float]]) -> str:
    """Saves a model with outputs that have one value for rows of 4 and 5 stars, and another for the rest."""

    def stars_of(examples: tf.Tensor) -> tf.Tensor:
        return tf.io.parse_example(examples, {"rating": tf.io.FixedLenFeature([], tf.float32)})["rating"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(examples):
        stars = stars_of(examples)
        return {name: tf.where(stars >= 4, liked, other) for name, (liked, other) in outputs.items()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def labels(examples):
        stars = stars_of(examples)
        return {"is_liked": tf.cast(stars >= 4, tf.float32), "is_decided": tf.cast(stars != 3, tf.float32)}

    tf.saved_model.save(tf.Module(), str(folder), signatures={"evaluate": evaluate, "labels": labels})
    return str(folder)


def recommender(**changed: tuple[float, float]) -> dict[str, tuple[float, float]]:
    """Outputs of a recommender that meets all thresholds, apart from those that are given."""
    metrics = ("recall_at_5", "recall_at_10", "ndcg_at_10")
    values = {f"{prefix}{name}": (0.5, 0.5) for prefix in ("", "retrieval_", "popularity_") for name in metrics}
    values |= {f"{name}_over_{other}": (0.1, 0.1) for name in metrics[1:] for other in ("retrieval", "popularity")}
    values |= {f"recall_at_10_{situation}": (0.5, 0.5) for situation in SITUATIONS}
    values |= {"popularity_by_group_recall_at_10": (0.5, 0.5), "rating_error": (0.1, 0.1)}
    return values | {"is_liked": (1.0, 0.0), "is_hit": (1.0, 1.0)} | changed


def measure(folder: Path, config: config_pb2.EvalConfig, *models: dict[str, tuple[float, float]]) -> str:
    """Measures a candidate, beside an earlier model if there are two; returns where the results are."""
    # As TFX's Evaluator does it.
    config = tfma.utils.update_eval_config_with_defaults(config, has_baseline=len(models) > 1, rubber_stamp=True)
    shared = [
        tfma.default_eval_shared_model(
            model(folder / (spec.name or "model"), outputs),
            model_name=spec.name,
            eval_config=config,
            rubber_stamp=len(models) == 1,
        )
        for spec, outputs in zip(config.model_specs, models, strict=True)
    ]
    source = tf_example_record.TFExampleBeamRecord(
        physical_format="inmem",
        telemetry_descriptors=["test"],
        schema=SCHEMA,
        raw_record_column_name=tfma.ARROW_INPUT_COLUMN,
    )
    adapter = tensor_adapter.TensorAdapterConfig(source.ArrowSchema(), source.TensorRepresentations())
    extractors = custom_extractors(eval_shared_model=shared, eval_config=config, tensor_adapter_config=adapter)
    output = str(folder / "results")
    with beam.Pipeline(options=PipelineOptions(BeamConfig().args())) as pipeline:
        batches = pipeline | beam.Create([example(stars) for stars in STARS]) | source.BeamSource()
        batches | tfma.ExtractEvaluateAndWriteResults(
            eval_shared_model=shared, eval_config=config, extractors=extractors, output_path=output
        )
    return output


def test_a_recommender_that_meets_all_thresholds_is_not_refused(tmp_path: Path) -> None:
    output = measure(tmp_path, recommender_eval_config(EVALUATION), recommender(recall_at_10=(0.5, 0.25)))
    assert read_refusals(output) == []
    evaluation = read_evaluation(output)
    assert evaluation["recall_at_10"] == pytest.approx({"mean_prediction": 0.375, "liked_mean": 0.5})
    assert evaluation["recall_at_10_after_1_year"]["share_kept"] == pytest.approx(0.5 / 0.375)


def test_each_threshold_on_a_value_is_checked(tmp_path: Path) -> None:
    refused = recommender(
        # All rows lose the same, so that the bounds are the mean.
        recall_at_10_over_retrieval=(-0.2, -0.2),
        recall_at_10_over_popularity=(-0.1, -0.1),
        # Over all rows these are gains, and over those of 4 and 5 stars losses.
        ndcg_at_10_over_retrieval=(-0.1, 0.3),
        ndcg_at_10_over_popularity=(-0.2, 0.4),
        **{f"recall_at_10_{later}": (0.4, 0.4) for later in ASKED_LATER},
        # People who are new have no threshold.
        recall_at_10_new_without_history=(0.0, 0.0),
    )
    output = measure(tmp_path, recommender_eval_config(EVALUATION), refused)
    # All rows lose the same, so that two standard errors are 0.
    refusal = "is 0.8000; should be at least 0.9500"
    assert sorted(read_refusals(output)) == [
        "liked_mean of ndcg_at_10_over_popularity is -0.2000; should be at least 0.0050",
        "liked_mean of ndcg_at_10_over_retrieval is -0.1000; should be at least 0.0000",
        "recall_at_10_over_popularity is -0.1000; should be at least 0.0050",
        "recall_at_10_over_retrieval is -0.2000 at best; should be at least -0.0020",
        *(f"share_kept_at_most of recall_at_10_{later} {refusal}" for later in sorted(ASKED_LATER)),
    ]


def test_each_threshold_on_a_change_is_checked(tmp_path: Path) -> None:
    # All rows change alike, so that the bounds are the change.
    lower = recommender(recall_at_10=(0.35, 0.35), ndcg_at_10=(0.3, 0.9))
    output = measure(tmp_path, recommender_eval_config(EVALUATION), lower, recommender())
    against = "against the champion's is"
    assert sorted(read_refusals(output)) == [
        f"liked ndcg_at_10 {against} -0.2000 at best; should be at least -0.1000",
        f"recall_at_10 {against} -0.1500 at best; should be at least -0.1000",
    ]


@pytest.mark.parametrize("undecided", ["bless", "refuse"])
def test_what_the_rows_cannot_tell_is_blessed_or_refused_as_configured(tmp_path: Path, undecided: str) -> None:
    # Half of the rows are better and half of them worse, so that .1 is within the bounds.
    torn = recommender(recall_at_10=(1.0, 0.0))
    evaluation = EVALUATION.model_copy(update={"undecided": undecided})
    output = measure(tmp_path, recommender_eval_config(evaluation), torn, recommender())
    worst = -NormalDist().inv_cdf(0.95) * 0.5 / np.sqrt(len(STARS))
    assert worst < -0.1
    refusal = f"recall_at_10 against the champion's is {worst:+.4f} at worst; should be at least -0.1000"
    assert read_refusals(output) == ([] if undecided == "bless" else [refusal])
    entry = model_summary(read_evaluation(output), [], True, None, evaluation.tolerances)
    assert entry["against_champion"]["recall_at_10"]["verdict"] == "undecided"
    assert entry["against_champion"]["recall_at_10"]["at_best"] == pytest.approx(-worst)
    assert entry["against_champion"]["liked_ndcg_at_10"]["verdict"] == "no worse"


@pytest.mark.parametrize("undecided", ["bless", "refuse"])
@pytest.mark.parametrize("lost", [0.0, 0.4])
def test_recall_that_is_lost_against_the_retriever_is_judged_with_confidence(
    tmp_path: Path, undecided: str, lost: float
) -> None:
    # Half of the rows have a half more than `-lost`, and half of them a half less.
    torn = recommender(recall_at_10_over_retrieval=(0.5 - lost, -0.5 - lost))
    evaluation = EVALUATION.model_copy(update={"undecided": undecided, "retrieval_tolerance": 0.1})
    output = measure(tmp_path, recommender_eval_config(evaluation), torn)
    width = NormalDist().inv_cdf(0.95) * 0.5 / np.sqrt(len(STARS))
    bound, how = (width - lost, "best") if undecided == "bless" else (-width - lost, "worst")
    refusal = f"recall_at_10_over_retrieval is {bound:.4f} at {how}; should be at least -0.1000"
    assert read_refusals(output) == ([refusal] if bound < -0.1 else [])


def test_a_gain_over_a_baseline_of_its_own_is_not_what_is_compared(tmp_path: Path) -> None:
    # The champion has a baseline that is worse on these rows, so that it gains more; the candidate is the better one.
    better = {"predicted_rating": (4.0, 3.0), "bias_predicted_rating": (4.0, 3.0)}
    situations = {f"squared_error_{situation}": (0.5, 0.5) for situation in SITUATIONS}
    candidate = better | situations | {"squared_error": (0.5, 0.5), "squared_error_gain": (0.1, 0.1)}
    champion = better | situations | {"squared_error": (0.7, 0.7), "squared_error_gain": (0.4, 0.4)}
    config = eval_config([Task.RATING], EVALUATION)
    assert read_refusals(measure(tmp_path / "better", config, candidate, champion)) == []
    # Now it is the worse one, though it gains more.
    worse = candidate | {"squared_error_gain": (0.9, 0.9)}
    good = champion | {"squared_error": (0.49, 0.49)}
    assert read_refusals(measure(tmp_path / "worse", config, worse, good)) == [
        "squared_error against the champion's is -0.0100 at best; should be at least -0.0020"
    ]


def test_without_a_champion_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    output = measure(tmp_path, recommender_eval_config(EVALUATION), recommender())
    assert read_refusals(output) == []
    assert model_summary(read_evaluation(output), [], True, None, EVALUATION.tolerances)["against_champion"] == {}


def test_an_earlier_recommender_without_some_outputs_stands_in_nobodys_way(tmp_path: Path) -> None:
    earlier = {name: values for name, values in recommender().items() if "_after_" not in name and "_new_" not in name}
    output = measure(tmp_path, recommender_eval_config(EVALUATION), recommender(), earlier)
    assert read_refusals(output) == []


def test_a_metric_that_is_no_number_is_refused_and_left_open_in_summary_and_tables(tmp_path: Path) -> None:
    nobody_likes = measure(tmp_path, recommender_eval_config(EVALUATION), recommender(is_liked=(0.0, 0.0)))
    reasons = read_refusals(nobody_likes)
    assert "liked_mean of ndcg_at_10_over_retrieval: no value" in reasons
    entry = model_summary(read_evaluation(nobody_likes), reasons, False, None, EVALUATION.tolerances)
    assert entry["metrics"]["liked_ndcg_at_10"] is None
    assert entry["metrics"]["ndcg_at_10"] is not None
    summary = {"models": {"recommender": entry}, "recommender": entry}
    json.loads(json.dumps(summary), parse_constant=pytest.fail)
    models, lists, kept = (table(summary) for table in (models_table, recommender_table, kept_table))
    assert "-" in str(list(models.columns[2].cells))
    assert list(lists.columns[4].cells) == ["-"] * len(lists.rows)
    assert kept.rows


def test_what_a_model_of_likes_keeps_is_checked_among_decided_rows(tmp_path: Path) -> None:
    probability = {"like_probability": (0.9, 0.2), "bias_like_probability": (0.7, 0.4), "log_loss_gain": (0.1, 0.1)}
    losses = {f"log_loss_{situation}": (0.4, 0.4) for situation in SITUATIONS} | {"log_loss": (0.4, 0.4)}
    config = eval_config(DCNHyperparameters(objective="like").tasks, EVALUATION)
    output = measure(tmp_path, config, probability | losses | {"log_loss_after_1_year": (0.6, 0.4)})
    # Half of the rows have .2 more, which is a standard deviation of .1.
    at_most = 0.4 / (0.5 - 2 * 0.1 / np.sqrt(len(STARS)))
    assert read_refusals(output) == [
        f"share_kept_at_most of log_loss_after_1_year is {at_most:.4f}; should be at least 0.9500",
    ]
    assert list(read_evaluation(output)[""].values()) == [(STARS != 3).sum()]
