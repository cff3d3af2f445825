"""TFX component: joins the blessed retriever and the blessed ranker into the two-stage recommender."""

import logging
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx import v1 as tfx
from tfx.components.evaluator import constants
from tfx.components.util import model_utils
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.recommender.two_stage_model import Arrays, Movies, Recommender, Users, save, smoke_test
from trainers.datasets import with_int32_indices, without_autotuning
from transform.features import (
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    LABEL,
    MOVIE_ID,
    USER_ID,
    Role,
    columns,
    transformed_name,
)

_logger = logging.getLogger(__name__)

_RATING_SPLITS = ("train", "eval", "test")
_BATCH_ROWS = 4096


@tfx.dsl.components.component
def RecommenderBuilder(
    examples: tfx.dsl.components.InputArtifact[list[standard_artifacts.Examples]],
    transform_graph: tfx.dsl.components.InputArtifact[standard_artifacts.TransformGraph],
    retrieval_model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    retrieval_blessing: tfx.dsl.components.InputArtifact[standard_artifacts.ModelBlessing],
    ranking_model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    ranking_blessing: tfx.dsl.components.InputArtifact[standard_artifacts.ModelBlessing],
    model: tfx.dsl.components.OutputArtifact[standard_artifacts.Model],
    blessing: tfx.dsl.components.OutputArtifact[standard_artifacts.ModelBlessing],
    candidates: tfx.dsl.components.Parameter[int] = 100,
    source: tfx.dsl.components.Parameter[str] = "",
) -> None:
    """Builds, saves, smoke-tests and blesses the recommender, provided that both its models are blessed.

    Args:
      examples: raw examples, of several spans if data come in spans; every rating in them, whatever its split, counts
        as seen and as history.
      transform_graph: the Transform output.
      retrieval_model: an exported model with the function `scores` and the catalogue.
      retrieval_blessing: the Evaluator's verdict on the retrieval model.
      ranking_model: an exported model with the function `ratings`.
      ranking_blessing: the Evaluator's verdict on the ranking model.
      model: receives the recommender; stays empty if one of the two models is not blessed.
      blessing: receives the verdict on the recommender.
      candidates: number of movies that the retriever hands to the ranker; at most the size of the catalogue is used.
      source: fingerprint of the code; as part of the cache key, it makes changed code run again.

    Raises:
      ValueError: the smoke test fails.
    """
    del source
    parts = {"retrieval": retrieval_blessing, "ranking": ranking_blessing}
    refused = [name for name, verdict in parts.items() if not model_utils.is_model_blessed(verdict)]
    if refused:
        _logger.warning("No recommender is built: %s not blessed.", " and ".join(refused))
        _write_blessing(blessing, model, blessed=False)
        return
    transform = tft.TFTransformOutput(transform_graph.uri)
    retrieval = tf.saved_model.load(path_utils.serving_model_path(retrieval_model.uri))
    # Earliest span first, so that the latest span counts for a movie or a user that several spans have.
    uris = [artifact.uri for artifact in sorted(examples, key=lambda artifact: artifact.span)]
    movies = _read_movies(uris, retrieval)
    users = read_users(uris, transform, movies)
    recommender = Recommender(
        retrieval=retrieval,
        ranking=tf.saved_model.load(path_utils.serving_model_path(ranking_model.uri)),
        movies=movies,
        users=users,
        candidates=min(candidates, np.count_nonzero(movies.ids)),
    )
    directory = path_utils.serving_model_path(model.uri)
    save(recommender, directory)
    smoke_test(directory, users, movies)
    _write_blessing(blessing, model, blessed=True)


def _write_blessing(blessing: standard_artifacts.ModelBlessing, model: standard_artifacts.Model, blessed: bool) -> None:
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    tf.io.gfile.makedirs(blessing.uri)
    with tf.io.gfile.GFile(os.path.join(blessing.uri, name), "w") as file:
        file.write("")


def _read_records(uris: Sequence[str], split: str) -> tf.data.Dataset:
    files = [path for uri in uris for path in sorted(tf.io.gfile.glob(os.path.join(uri, f"Split-{split}", "*.gz")))]
    return without_autotuning(
        tf.data.TFRecordDataset(files, compression_type="GZIP", num_parallel_reads=1).batch(_BATCH_ROWS)
    )


def _concatenate(batches: list[Arrays]) -> Arrays:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _read_movies(uris: Sequence[str], retrieval: tf.Module) -> Movies:
    """Returns the catalogue in the retriever, with titles from the raw examples, because the retriever has none."""
    spec = {MOVIE_ID: tf.io.FixedLenFeature([], tf.int64), "title": tf.io.FixedLenFeature([], tf.string)}
    raw = _concatenate([_parse(rows, spec) for rows in _read_records(uris, "movies")])
    ids = retrieval.heads[0].raw_ids.numpy()
    known = np.isin(raw[MOVIE_ID], ids)
    titles = np.full(len(ids), b"", object)
    titles[_positions(ids, raw[MOVIE_ID][known])] = raw["title"][known]
    return Movies(ids, titles, {name: values.numpy() for name, values in retrieval.catalogue.features.items()})


def read_users(uris: Sequence[str], transform: tft.TFTransformOutput, movies: Movies) -> Users:
    """Returns all users who rated movies of the catalogue, with these movies as their history and as seen.

    Args:
      uris: folders of raw examples, the earliest span first.
      transform: the Transform output.
      movies: the catalogue.
    """
    spec = {
        USER_ID: tf.io.FixedLenFeature([], tf.int64),
        MOVIE_ID: tf.io.FixedLenFeature([], tf.int64),
        LABEL: tf.io.FixedLenFeature([], tf.float32),
        "timestamp": tf.io.FixedLenFeature([], tf.int64),
    }
    rated: list[Arrays] = []
    # One raw row of each user, of the latest span, from which the user's features are made.
    representatives: dict[int, bytes] = {}
    for uri in uris:
        for split in _RATING_SPLITS:
            for rows in _read_records([uri], split):
                batch = _parse(rows, spec)
                rated.append(batch)
                records = rows.numpy()
                for user, position in zip(*np.unique(batch[USER_ID], return_index=True), strict=True):
                    representatives[int(user)] = records[position]
    ratings = _concatenate(rated)
    # If the retriever was trained on the latest spans only, its catalogue may lack movies of earlier spans.
    in_catalogue = np.isin(ratings[MOVIE_ID], movies.ids)
    ratings = {name: values[in_catalogue] for name, values in ratings.items()}
    order = np.lexsort((ratings["timestamp"], ratings[USER_ID]))
    ids, counts = np.unique(ratings[USER_ID], return_counts=True)
    seen = _positions(movies.ids, ratings[MOVIE_ID][order]).astype(np.int32)
    # Row 0, an unknown user, has seen nothing.
    offsets = np.concatenate([[0, 0], np.cumsum(counts)])

    layer, raw_spec = transform.transform_features_layer(), transform.raw_feature_spec()
    serialized = [representatives[int(user)] for user in ids]
    user_columns = columns(Role.USER, Role.CONTEXT, Role.HISTORY, among=transform.transformed_feature_spec())
    names = [column.name for column in user_columns]
    transformed = _concatenate(
        [
            {name: features[name].numpy() for name in names}
            for part in np.array_split(np.array(serialized, object), max(1, len(serialized) // _BATCH_ROWS))
            for features in [with_int32_indices(layer(tf.io.parse_example(part, raw_spec)))]
        ]
    )
    features = {name: np.concatenate([np.zeros_like(value[:1]), value]) for name, value in transformed.items()}
    features |= _latest_ratings(
        seen, ratings[LABEL][order], offsets, features[transformed_name(HISTORY_MOVIES)].shape[1]
    )
    return Users(np.concatenate([[0], ids]), features, offsets, seen)


def _latest_ratings(movies: np.ndarray, ratings: np.ndarray, offsets: np.ndarray, length: int) -> Arrays:
    """Returns each row's last `length` movies and their ratings, newest first: [rows, length]."""
    positions = offsets[1:, np.newaxis] - 1 - np.arange(length)
    inside = positions >= offsets[:-1, np.newaxis]
    positions = np.where(inside, positions, 0)
    return {
        transformed_name(HISTORY_MOVIES): np.where(inside, movies[positions], 0).astype(np.int32),
        transformed_name(HISTORY_RATINGS): np.where(inside, ratings[positions], 0).astype(np.float32),
    }


def _positions(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the index in `ids` of each wanted id."""
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _parse(rows: tf.Tensor, spec: dict[str, tf.io.FixedLenFeature]) -> Arrays:
    return {name: value.numpy() for name, value in tf.io.parse_example(rows, spec).items()}
