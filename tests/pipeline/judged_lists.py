"""Compares the lists that the recommender judges for test rows with its answers to the same people."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.utils import path_utils

from components.recommender.stored_data import read_movies, read_users, records
from components.recommender.two_stage_model import Recommender, Transform
from transform.features import HISTORY_MOVIES, HISTORY_RATINGS, HISTORY_TIMES, TIMESTAMP, USER_ID


def judged_and_answered(output: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The movie ids of both lists for the first test rows with a history: int64 [rows, candidates] each.

    The recommender is made of a run's artifacts anew, but knows train ratings alone, as test rows do: the one that is
    pushed counts test ratings as seen, and so could never recommend what they are for.

    Args:
      output: output folder of a run that pushed a recommender.
      rows: number of rows.
    """
    pushed = tf.saved_model.load(json.loads((output / "summary.json").read_text())["recommender"]["pushed"])
    artifacts = output / "pipeline"
    examples = _newest(artifacts / "MovieLensExampleGen" / "examples")
    retrieval, ranking = (
        tf.saved_model.load(path_utils.serving_model_path(_newest(artifacts / f"Trainer.{name}" / "model")))
        for name in ("retrieval", "ranking")
    )
    transform = tft.TFTransformOutput(_newest(artifacts / "Transform" / "transform_graph"))
    movies = read_movies(examples, retrieval.heads[0].raw_ids.numpy(), retrieval.catalogue.candidates.numpy())
    recommender = Recommender(
        retrieval,
        ranking,
        Transform(transform.transform_features_layer(), transform.raw_feature_spec()),
        movies,
        read_users(examples, transform, movies, splits=("train",)),
        int(pushed.candidates),
    )
    for_new, for_known = pushed.weights.numpy()
    recommender.set_second_stage(for_known, for_new)
    judged, answered = [], []
    for batch in records(examples, "test", 200):
        raw = tf.io.parse_example(batch, transform.raw_feature_spec())
        history = tf.sparse.to_dense(raw[HISTORY_MOVIES])
        lists, _, _ = recommender.candidates_of(batch)
        final = lists.ordered()
        ids = np.where(np.isfinite(final.scores), movies.ids[final.movies], 0)
        with_history = history.numpy().any(axis=1)
        judged.append(ids[with_history])
        answered.append(_ask(recommender, raw, history)[with_history])
        if sum(map(len, judged)) >= rows:
            break
    return np.concatenate(judged)[:rows], np.concatenate(answered)[:rows]


def _ask(recommender: Recommender, raw: dict[str, tf.SparseTensor], history: tf.Tensor) -> np.ndarray:
    people = tf.shape(history)[0]
    zeros, nobody, no_list = tf.zeros([people], tf.int64), tf.fill([people], ""), tf.zeros([people, 0], tf.int64)
    answer = recommender.recommend(
        user_id=raw[USER_ID].values,
        history_movie_ids=history,
        history_ratings=tf.sparse.to_dense(raw[HISTORY_RATINGS]),
        history_timestamps=tf.sparse.to_dense(raw[HISTORY_TIMES]),
        now=raw[TIMESTAMP].values,
        gender=nobody,
        age=zeros,
        occupation=zeros,
        zip_code=nobody,
        exclude_movie_ids=no_list,
        k=zeros,
    )
    return answer["movie_id"].numpy()


def _newest(folder: Path) -> str:
    return str(max(folder.iterdir(), key=lambda path: int(path.name)))
