"""TFX component: joins a retriever and a rating model into the two-stage recommender."""

import dataclasses

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx import v1 as tfx
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.recommender import second_stage
from components.recommender.requests import Limits
from components.recommender.second_stage import RATING_ORDER, RETRIEVAL_ORDER, Candidates
from components.recommender.stored_data import read_movies, read_users, records
from components.recommender.two_stage_model import Recommender, Transform, save, smoke_test
from transform.features import LABEL, USER_ID

# Orders of the second stage: that whose weights are fitted, and the weights of the others.
BLEND = "blend"
ORDERS = {"rating": RATING_ORDER, "retrieval": RETRIEVAL_ORDER}

# Whom training saw, and whom it did not: a predicted rating tells less of somebody new, and so it counts less.
KNOWN, NEW = PEOPLE = ("known", "new")

# More rows would hardly change the five weights that are fitted to them.
_FITTED_ROWS = 50_000
_BATCH_ROWS = 256


@tfx.dsl.components.component
def RecommenderBuilder(
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    transform_graph: tfx.dsl.components.InputArtifact[standard_artifacts.TransformGraph],
    retrieval_model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    ranking_model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    recommender: tfx.dsl.components.OutputArtifact[standard_artifacts.Model],
    candidates: tfx.dsl.components.Parameter[int] = 100,
    order: tfx.dsl.components.Parameter[str] = BLEND,
    tolerance: tfx.dsl.components.Parameter[float] = 0.0,
    max_batch: tfx.dsl.components.Parameter[int] = Limits.batch,
    max_history: tfx.dsl.components.Parameter[int] = Limits.history,
) -> None:
    """Builds, saves and smoke-tests the recommender.

    Args:
      examples: raw examples; every rating in them, whatever its split, counts as seen and as history. The second stage
        is fitted to the eval split. They may be newer than what the models were trained on: movies that have left the
        catalogue since are not recommended, and those that are newer than the models cannot be.
      transform_graph: the Transform output that both models were trained with.
      retrieval_model: an exported model with the function `scores`.
      ranking_model: an exported model with the function `ratings_of`; may be the same one.
      recommender: receives the recommender.
      candidates: number of movies that the retriever hands to the second stage; at most the size of the catalogue.
      order: by what the second stage orders them: `blend`, `rating` or `retrieval`.
      tolerance: recall@10 that `blend` may lose against the retriever's own order.
      max_batch: largest number of people in a request.
      max_history: largest number of movies in a history.

    Raises:
      ValueError: the retriever knows no movie of the catalogue, or the smoke test fails.
    """
    transform = tft.TFTransformOutput(transform_graph.uri)
    retrieval = tf.saved_model.load(path_utils.serving_model_path(retrieval_model.uri))
    is_one_model = retrieval_model.uri == ranking_model.uri
    ranking = retrieval if is_one_model else tf.saved_model.load(path_utils.serving_model_path(ranking_model.uri))
    movies = read_movies(examples.uri, retrieval.heads[0].raw_ids.numpy(), retrieval.catalogue.candidates.numpy())
    users = read_users(examples.uri, transform, movies)
    graph = Recommender(
        retrieval=retrieval,
        ranking=ranking,
        transform=Transform(transform.transform_features_layer(), transform.raw_feature_spec()),
        movies=movies,
        users=users,
        candidates=min(candidates, movies.count),
        limits=Limits(max_batch, max_history),
    )
    if order == BLEND:
        rows_of_people = eval_rows(graph, examples.uri)
        weights = {people: second_stage.fit(rows, tolerance, people) for people, rows in rows_of_people}
    else:
        weights = dict.fromkeys(PEOPLE, ORDERS[order])
    graph.set_second_stage(for_known=weights[KNOWN], for_new=weights[NEW])
    for people, of_people in weights.items():
        for name, weight in zip(second_stage.FEATURES, of_people, strict=True):
            recommender.set_float_custom_property(f"weight_of_{name}_for_{people}_people", float(weight))
    directory = path_utils.serving_model_path(recommender.uri)
    save(graph, directory)
    smoke_test(directory, users, movies)


def eval_rows(recommender: Recommender, uri: str) -> list[tuple[str, Candidates]]:
    """The candidates of the rows of the eval split, which no model was fitted to if the split is what it was then.

    Args:
      recommender: retrieves and rates them.
      uri: folder of raw examples.

    Returns:
      For each of `PEOPLE`, the candidates of the rows' people as such.
    """
    spec = {USER_ID: tf.io.FixedLenFeature([], tf.int64), LABEL: tf.io.FixedLenFeature([], tf.float32)}
    parts: dict[str, list[Candidates]] = {people: [] for people in PEOPLE}
    for examples in records(uri, "eval", _BATCH_ROWS).take(_FITTED_ROWS // _BATCH_ROWS):
        *lists_of_people, movies = recommender.candidates_of(examples)
        raw = tf.io.parse_example(examples, spec)
        for people, lists in zip(PEOPLE, lists_of_people, strict=True):
            is_target = lists.movies.numpy() == movies.numpy()[:, np.newaxis]
            target = np.where(is_target.any(axis=1), is_target.argmax(axis=1), -1)
            features = recommender.second_stage_features(lists)
            parts[people].append(Candidates(features, target, raw[LABEL].numpy(), raw[USER_ID].numpy()))
    if not parts[KNOWN]:
        raise ValueError("The split 'eval' should have at least one row to fit the second stage to; received none.")
    fields = [field.name for field in dataclasses.fields(Candidates)]
    return [
        (people, Candidates(*(np.concatenate([getattr(part, field) for part in of_people]) for field in fields)))
        for people, of_people in parts.items()
    ]
