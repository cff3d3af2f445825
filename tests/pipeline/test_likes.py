"""For likes, the stock Evaluator and FeatureImportance count only decided rows, those with other than 3 stars."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tfx import v1 as tfx
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import channel_utils, standard_artifacts
from tfx.utils import path_utils

from benchmarks.metrics import like_metrics
from components.importance.feature_importance import FeatureImportance, FeatureImportanceReport, measure
from components.importance.report import to_json
from pipeline.beam_config import BeamConfig
from pipeline.config import EvaluationConfig
from pipeline.gates import eval_config
from pipeline.local.report import model_summary, read_evaluation, read_refusals
from tests.transform import transform_graph
from trainers.datasets import Splits, with_int32_indices
from trainers.dcn import SPECS, Crosses
from trainers.export import like_head as like
from trainers.export import signatures
from trainers.export.situations import SITUATIONS
from trainers.hyperparameters import DCNHyperparameters, Task

pytestmark = pytest.mark.component

MISSING_FEATURES = ("director", "star")


def movie(number):
    row = {"movie_id": [number], "title": [f"Film {number} (1990)"], "release_year": [1980 + number]}
    return row | {"genres": [("Drama", "War")[number % 2]]}


def rating(rng):
    user, number = int(rng.integers(1, 8)), int(rng.integers(1, 13))
    person = {"user_id": [user], "gender": ["FM"[user % 2]], "age": [25], "occupation": [user]}
    stars = float(np.clip(np.round(2 + number % 3 + rng.normal()), 1, 5))
    return movie(number) | person | {"zip_code": ["02139"], "timestamp": [10**9], "rating": [stars]}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return [rating(rng) for _ in range(300)]


@pytest.fixture(scope="module")
def splits(rows, tmp_path_factory):
    movies = [movie(n) for n in range(1, 13)]
    graph = transform_graph.analyze([*rows, *movies], tmp_path_factory.mktemp("graph"), 4, MISSING_FEATURES)
    output = tft.TFTransformOutput(str(graph))

    def transformed(raw_rows):
        raw = tf.io.parse_example([transform_graph.serialize(row) for row in raw_rows], output.raw_feature_spec())
        return {name: x.numpy() for name, x in with_int32_indices(output.transform_features_layer()(raw)).items()}

    return Splits(transformed(rows), transformed(rows[:50]), transformed(movies), output)


@pytest.fixture(scope="module")
def model(splits, tmp_path_factory):
    """An untrained model: its order of the rows is arbitrary, and it does not beat the biases."""
    tf.keras.utils.set_random_seed(0)
    task = SPECS[Task.LIKE]
    decided = task.rows(splits)
    network = task.build(decided, DCNHyperparameters(objective="like", embedding_dim=8))
    network.compute_loss({name: tf.constant(values) for name, values in decided.train.items()})
    artifact = standard_artifacts.Model()
    artifact.uri = str(tmp_path_factory.mktemp("model"))
    signatures.export(network, decided, path_utils.serving_model_dir(artifact.uri), (like.LikeHead, Crosses))
    return artifact


@pytest.fixture(scope="module")
def answers(rows, model):
    loaded = tf.saved_model.load(path_utils.serving_model_path(model.uri))
    examples = tf.constant([transform_graph.serialize(row) for row in rows])
    return {
        name: {key: values.numpy() for key, values in signature(examples).items()}
        for name, signature in loaded.signatures.items()
    }


def test_the_signatures_return_probabilities_and_labels(rows, answers):
    assert sorted(answers) == ["evaluate", "labels", "serving_default"]
    stars = np.array([row["rating"][0] for row in rows])
    assert set(stars) == {1, 2, 3, 4, 5}
    np.testing.assert_array_equal(answers["labels"]["is_decided"], stars != 3)
    np.testing.assert_array_equal(answers["labels"]["is_liked"], stars > 3)
    assert set(answers["serving_default"]) == {"like_probability"}
    served = answers["serving_default"]["like_probability"]
    np.testing.assert_array_equal(served, answers["evaluate"]["like_probability"])
    assert ((served > 0) & (served < 1)).all()


def test_the_evaluator_measures_only_decided_rows(rows, model, answers, tmp_path):
    examples, evaluation = standard_artifacts.Examples(), standard_artifacts.ModelEvaluation()
    blessing = standard_artifacts.ModelBlessing()
    for name, artifact in (("examples", examples), ("evaluation", evaluation), ("blessing", blessing)):
        artifact.uri = str(tmp_path / name)
    examples.split_names = '["test"]'
    (tmp_path / "examples" / "Split-test").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(tmp_path / "examples" / "Split-test" / "data.gz"), "GZIP") as writer:
        for row in rows:
            writer.write(transform_graph.serialize(row))
    like = DCNHyperparameters(objective="like")
    component = tfx.components.Evaluator(
        examples=channel_utils.as_channel([examples]),
        model=channel_utils.as_channel([model]),
        example_splits=["test"],
        eval_config=eval_config(like.tasks, EvaluationConfig(slices=[["gender"]])),
    )
    context = BaseBeamExecutor.Context(
        beam_pipeline_args=BeamConfig().args(), tmp_dir=str(tmp_path / "tmp"), unique_id="1"
    )
    component.executor_spec.executor_class(context).Do(
        {"examples": [examples], "model": [model]},
        {"evaluation": [evaluation], "blessing": [blessing]},
        component.exec_properties,
    )

    summary = model_summary(
        read_evaluation(evaluation.uri), read_refusals(evaluation.uri), False, None, EvaluationConfig().tolerances
    )
    decided = answers["labels"]["is_decided"] > 0
    liked = answers["labels"]["is_liked"][decided] > 0
    for key, output in (("metrics", "like_probability"), ("baseline", "bias_like_probability")):
        probabilities = answers["evaluate"][output][decided].astype(np.float64)
        expected = like_metrics(np.log(probabilities / (1 - probabilities)), liked)
        # The Evaluator is approximate: it counts probabilities in 10,000 bins.
        assert summary[key] == pytest.approx(expected, abs=2e-3)
    losses = {name: values[decided].astype(np.float64) for name, values in answers["evaluate"].items()}
    assert summary["kept"] == {
        "log_loss": {
            situation: pytest.approx(losses["log_loss"].mean() / losses[f"log_loss_{situation}"].mean(), rel=1e-4)
            for situation in SITUATIONS
        }
    }
    counted = read_evaluation(evaluation.uri)[""]
    assert list(counted.values()) == [decided.sum()]
    # The biases were fitted to the data, the network was not.
    assert summary["baseline"]["log_loss"] < summary["metrics"]["log_loss"]
    (reason,) = summary["reasons"]
    gain = summary["baseline"]["log_loss"] - summary["metrics"]["log_loss"]
    assert reason == f"log_loss_gain is {gain:.4f}; should be at least {EvaluationConfig().log_loss_margin:.4f}"


def transformed_example(arrays, row):
    example = tf.train.Example()
    for name, values in arrays.items():
        feature, value = example.features.feature[name], values[row].flatten()
        if value.dtype.kind == "i":
            feature.int64_list.value.extend(value.tolist())
        else:
            feature.float_list.value.extend(value.tolist())
    return example.SerializeToString()


@pytest.mark.parametrize("stars", [[], [4.0], [3.0, 3.0, 3.0], [3.0, 1.0, 3.0]])
def test_importance_is_not_measured_on_fewer_than_two_decided_rows(splits, model, tmp_path, stars):
    given = {name: values[: len(stars)] for name, values in splits.eval.items()}
    given["rating_xf"] = np.array(stars, np.float32)
    if stars:
        measured = importance_of(splits, model, given, tmp_path)
        assert measured["rows"] == sum(each != 3 for each in stars)
    else:
        report = measure(tf.saved_model.load(path_utils.serving_model_path(model.uri)), given)
        measured = json.loads(to_json(report))
        assert measured["rows"] == 0
    assert "Too few rows" in measured["note"]
    assert measured["loss"] is None


def importance_of(splits, model, rows, folder):
    """What FeatureImportance writes about rows: its JSON. Its picture and HTML lie beside it in `folder`/importance."""
    examples, graph = standard_artifacts.Examples(), standard_artifacts.TransformGraph()
    importance = FeatureImportanceReport()
    graph.uri = splits.transform.transform_savedmodel_dir.rsplit("/", 1)[0]
    examples.uri, importance.uri = str(folder / "examples"), str(folder / "importance")
    examples.split_names = '["train", "eval"]'
    (folder / "examples" / "Split-eval").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "examples" / "Split-eval" / "rows.gz"), "GZIP") as writer:
        for row in range(len(rows["rating_xf"])):
            writer.write(transformed_example(rows, row))

    FeatureImportance.EXECUTOR_SPEC.executor_class().Do(
        {"model": [model], "examples": [examples], "transform_graph": [graph]},
        {"importance": [importance]},
        {"seed": 0},
    )
    return json.loads((folder / "importance" / "importance.json").read_text())


def test_importance_is_measured_on_decided_rows_only(splits, model, answers, tmp_path):
    given = {name: values[:50] for name, values in splits.eval.items()}
    document = importance_of(splits, model, given, tmp_path)
    decided = answers["labels"]["is_decided"][:50] > 0
    probabilities = answers["evaluate"]["like_probability"][:50][decided].astype(np.float64)
    liked = answers["labels"]["is_liked"][:50][decided] > 0
    assert document["rows"] == decided.sum() < 50
    assert document["loss"] == pytest.approx(
        like_metrics(np.log(probabilities / (1 - probabilities)), liked)["log_loss"], rel=1e-3
    )
    names = {"user_id", "gender", "age", "occupation", "zip_code", "movie_id", "genres"}
    assert {each["feature"] for each in document["features"]} == names
    assert len(document["pairs"]) == 21
    assert all(pair["effect"] > 0 for pair in document["pairs"] if "zip_code" not in pair["features"])
    assert (tmp_path / "importance" / "importance.png").read_bytes().startswith(b"\x89PNG")
    assert "log-odds" in (tmp_path / "importance" / "importance.html").read_text()
