"""A feature is declared in one place: one added there reaches the schema, Transform, the models and requests."""

import importlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform import transform_graph
from trainers import hyperparameters
from trainers.datasets import Splits, with_int32_indices
from trainers.export import signatures
from transform import features
from transform.features import Feature, Kind, Role
from transform.schema import curated_schema

pytestmark = pytest.mark.component

MODELS: dict[str, tuple[str, Any, signatures.HeadType]] = {
    "dcn": ("DCNModel", hyperparameters.DCNHyperparameters, signatures.RatingHead),
    "retrieval": ("RetrievalModel", hyperparameters.RetrievalHyperparameters, signatures.RetrievalHead),
    "ranking": ("RankingModel", hyperparameters.RankingHyperparameters, signatures.RatingHead),
    "joint": ("MovielensModel", hyperparameters.JointHyperparameters, signatures.RatingHead),
}


def movie(number):
    row = {"movie_id": [number], "title": [f"Film {number} (1990)"], "release_year": [1980 + number]}
    return row | {"genres": [("Drama", "War")[number % 2]]}


def rating(number):
    person = {"user_id": [1 + number % 7], "gender": ["FM"[number % 2]], "age": [25], "occupation": [number % 21]}
    person |= {"zip_code": ["02139"], "country": [("FR", "NO")[number % 2]], "timestamp": [10**9 + number]}
    return movie(1 + number % 12) | person | {"rating": [3.0 + number % 2], "history_movie_ids": [2, 3]}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        added = Feature("country", "string", Role.USER, (Kind.CATEGORY,))
        patch.setattr(features, "FEATURES", (*features.FEATURES, added))
        ratings, movies = [rating(n) for n in range(60)], [movie(n) for n in range(1, 13)]
        missing_features = ("director", "star")
        graph = transform_graph.analyze([*ratings, *movies], tmp_path_factory.mktemp("graph"), 4, missing_features)
        output = tft.TFTransformOutput(str(graph))

        def transformed(rows):
            raw = tf.io.parse_example([transform_graph.serialize(row) for row in rows], output.raw_feature_spec())
            return {name: x.numpy() for name, x in with_int32_indices(output.transform_features_layer()(raw)).items()}

        yield Splits(transformed(ratings), transformed(ratings[:9]), transformed(movies), output)


def test_the_added_feature_is_in_the_schema_and_in_transformed_rows(splits):
    assert "country" in {feature.name for feature in curated_schema().feature}
    assert "country_xf" in splits.train


@pytest.mark.parametrize("name", MODELS)
def test_predictions_depend_on_the_added_feature(splits, name, tmp_path):
    tf.keras.utils.set_random_seed(0)
    class_name, hparams, head = MODELS[name]
    model = getattr(importlib.import_module(f"trainers.{name}"), class_name)(splits, hparams())
    model.compute_loss({key: tf.constant(value) for key, value in splits.train.items()})
    signatures.export(model, splits, str(tmp_path), (head,))
    serve = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]

    def predictions(country):
        requests = [{**rating(number), "country": [country]} for number in range(24)]
        answer = serve(tf.constant([transform_graph.serialize(request) for request in requests]))
        return answer["score" if name == "retrieval" else "predicted_rating"].numpy()

    np.testing.assert_array_equal(predictions("FR"), predictions("FR"))
    # Some may be equal, because an untrained model's predictions may be clipped to 1 or 5.
    assert (predictions("FR") != predictions("NO")).any()
