"""Exports models as plain TensorFlow functions with the Transform graph inside, which stock TensorFlow Serving loads.

Every SavedModel has two signatures. Both take serialized raw tf.Examples, string [batch_size]:

* `serving_default` returns predictions;
* `evaluate` returns what the Evaluator aggregates to metrics: per-row metrics or predictions of the model and of its
  trivial baseline, the gain over the baseline, and the model's main metric in every situation of
  `trainers.export.situations`, with the situation's name as suffix.

A model whose label is not the rating itself has a third signature, `labels`, which returns the label of each row and
its weight in metrics.

The SavedModel also holds those of these functions that the model has, from which larger models are built. They take
transformed features; of the roles user, context and history alone where only a person is described.

* `ratings` and `like_logits` of pairs of a person and a movie: float32 [batch_size];
* `read_histories`: what the query tower reads of a person's history, by the name of `towers.HISTORY_READ`;
* `scores` of a person for every movie, and the query vector that they come from: `scores` float32
  [batch_size, movie indices] and `queries` float32 [batch_size, dim]; what `read_histories` returned is among its
  inputs, so that a history is read once for all moments of asking;
* `queries` alone, of people whose histories are read for this query only, and `scores_of` queries:
  float32 [batch_size, dim] and [batch_size, movie indices];
* `ratings_of` a person for some movies, int32 [batch_size, movies], given the query vector: float32
  [batch_size, movies].

What depends on the catalogue alone was computed at export. Of a model to which all moments are alike from some time
after somebody's latest rating on, the SavedModel holds this time, in seconds, as the variable `alike_after`.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from trainers import baselines
from trainers.datasets import Splits, with_int32_indices
from trainers.export import metrics
from trainers.export.situations import Raw, in_every_situation
from trainers.layers.towers import Tensors
from trainers.layers.weights import named_weights
from transform.features import (
    LABEL,
    MOVIE_ID,
    SEEN_MOVIES,
    USER_ID,
    Role,
    columns,
    is_read,
    transformed_name,
    vocabulary_name,
)

TOP_K = 100

# Nobody trains an exported model. Without the gradients of its lookups it takes half the time to save and to load. A
# model that is built from exported ones has to be saved without them, too.
SAVE_OPTIONS = tf.saved_model.SaveOptions(experimental_custom_gradients=False)


class Head(Protocol):
    """Exports one task of a model: its predictions, and their comparison with a trivial baseline."""

    def serve(self, features: Tensors) -> Tensors:
        """Predicts from transformed features: [batch_size, ...] by output name."""

    def evaluate(self, features: Tensors, raw: Raw) -> Tensors:
        """Computes per-row values for the Evaluator: float32 [batch_size] by output name.

        Args:
          features: transformed features.
          raw: raw features of the same rows.
        """

    def main_metric(self, features: Tensors, raw: Raw) -> Tensors:
        """Computes what tells how good the model is in a situation; arguments and result are those of `evaluate`."""


class RetrievalHead(tf.Module):
    """Retrieves the movies with the highest scores, and compares their metrics with those of popularity."""

    def __init__(self, model: tf.keras.Model, splits: Splits):
        super().__init__()
        self._scores = model.scores
        movies = splits.transform.vocabulary_by_name(vocabulary_name(MOVIE_ID))
        raw_ids = np.array([0, *(int(movie) for movie in movies), 0], np.int64)
        self.raw_ids = tf.Variable(raw_ids, trainable=False, name="raw_movie_ids")
        self.index = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(raw_ids[1:-1], np.arange(1, len(movies) + 1)), default_value=0
        )
        candidates = splits.movies[transformed_name(MOVIE_ID)]
        counts = np.full(splits.movie_size, -np.inf, np.float32)
        # What has left the catalogue is no candidate of these lists, either.
        counts[candidates] = baselines.popularity(splits)[candidates]
        self._candidate_count = len(candidates)
        self.popularity = tf.Variable(counts, trainable=False, name="popularity")
        by_group = np.where(np.isfinite(counts), baselines.popularity_by_group(splits), -np.inf)
        self.popularity_by_group = tf.Variable(by_group, trainable=False, name="popularity_by_group")

    def serve(self, features: Tensors) -> Tensors:
        scores = self._scores(features)
        top = tf.math.top_k(scores, k=min(TOP_K, self._candidate_count))
        return {"movie_id": tf.gather(self.raw_ids, top.indices), "score": top.values}

    def evaluate(self, features: Tensors, raw: Raw) -> Tensors:
        targets, seen = self._targets_and_seen(features, raw)
        values = metrics.retrieval_metrics(self._scores(features), targets, seen)
        for name, value in metrics.popularity_metrics(self.popularity, targets, seen).items():
            values[f"popularity_{name}"] = value
        values["recall_at_10_filtered_gain"] = (
            values["recall_at_10_filtered"] - values["popularity_recall_at_10_filtered"]
        )
        group = tf.stack([features[transformed_name(name)] for name in ("gender", "age")], axis=1)
        of_group = tf.gather_nd(self.popularity_by_group, group)
        values["popularity_by_group_recall_at_10_filtered"] = _filtered_recall(of_group, targets, seen)
        return values

    def main_metric(self, features: Tensors, raw: Raw) -> Tensors:
        return {
            "recall_at_10_filtered": _filtered_recall(self._scores(features), *self._targets_and_seen(features, raw))
        }

    def _targets_and_seen(self, features: Tensors, raw: Raw) -> tuple[tf.Tensor, tf.Tensor]:
        seen = raw[SEEN_MOVIES]
        pairs = tf.stack([seen.indices[:, 0], self.index.lookup(seen.values)], axis=1)
        return tf.cast(features[transformed_name(MOVIE_ID)], tf.int64), pairs


def _filtered_recall(scores: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    return metrics.recall(metrics.filtered_ranks(scores, targets, seen), 10)


class ExportedBiases(tf.Module):
    """A trivial bias model; called with transformed features, it returns its predictions, float32 [batch_size]."""

    def __init__(self, biases: baselines.Biases):
        super().__init__()
        self.mean = tf.Variable(biases.mean, trainable=False, name="mean")
        self.users = tf.Variable(biases.users, trainable=False, name="user_biases")
        self.movies = tf.Variable(biases.movies, trainable=False, name="movie_biases")

    def __call__(self, features: Tensors) -> tf.Tensor:
        users, movies = features[transformed_name(USER_ID)], features[transformed_name(MOVIE_ID)]
        return self.mean + tf.gather(self.users, users) + tf.gather(self.movies, movies)


class RatingHead(tf.Module):
    """Predicts ratings, and compares them with those of the trivial model of user and movie biases."""

    def __init__(self, model: tf.keras.Model, splits: Splits):
        super().__init__()
        self._ratings = model.ratings
        self.biases = ExportedBiases(baselines.BiasModel.of(splits))

    def serve(self, features: Tensors) -> Tensors:
        return {"predicted_rating": self._ratings(features)}

    def evaluate(self, features: Tensors, raw: Raw) -> Tensors:
        del raw
        rating = features[transformed_name(LABEL)]
        predicted = self._ratings(features)
        bias = tf.clip_by_value(self.biases(features), 1.0, 5.0)
        return {
            "predicted_rating": predicted,
            "bias_predicted_rating": bias,
            "squared_error_gain": tf.square(bias - rating) - tf.square(predicted - rating),
        }

    def main_metric(self, features: Tensors, raw: Raw) -> Tensors:
        del raw
        return {"squared_error": tf.square(self._ratings(features) - features[transformed_name(LABEL)])}


HeadType = Callable[[tf.keras.Model, Splits], Head]


def export(model: tf.keras.Model, splits: Splits, directory: str, heads: tuple[HeadType, ...]) -> None:
    """Writes a SavedModel.

    Args:
      model: a trained model with the functions that the heads call.
      splits: the splits that it was trained on.
      directory: the folder of the SavedModel, which is created.
      heads: types of the heads, which are made from the model and the splits.
    """
    if hasattr(model, "freeze"):
        model.freeze()
    module = tf.Module()
    # The module holds the variables but not the Keras objects, which would add Keras's own, much larger, saved format.
    module.model_variables = list(model.variables)
    names = {weight.ref(): name for name, weight in named_weights(model).items()}
    module.model_variable_names = tf.Variable(
        [names.get(variable.ref(), "") for variable in model.variables], trainable=False
    )
    module.catalogue = getattr(model, "catalogue", None)
    module.transform = splits.transform.transform_features_layer()
    module.heads = [head(model, splits) for head in heads]
    alike_after = getattr(model, "alike_after", None)
    if alike_after is not None:
        module.alike_after = tf.Variable(alike_after, trainable=False, dtype=tf.int64)
    raw_spec = splits.transform.raw_feature_spec()

    def parse(examples: tf.Tensor) -> tuple[Tensors, Raw]:
        raw = tf.io.parse_example(examples, raw_spec)
        return with_int32_indices(module.transform(raw)), raw

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serving_default(examples: tf.Tensor) -> Tensors:
        features, _ = parse(examples)
        return {name: value for head in module.heads for name, value in head.serve(features).items()}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(examples: tf.Tensor) -> Tensors:
        features, raw = parse(examples)
        if hasattr(model, "read_histories"):
            features |= model.read_histories(features)
        values = {name: value for head in module.heads for name, value in head.evaluate(features, raw).items()}

        def main_metrics(there: Tensors) -> Tensors:
            return {name: value for head in module.heads for name, value in head.main_metric(there, raw).items()}

        values |= main_metrics(features)
        return values | in_every_situation(main_metrics, features, raw, module.transform, alike_after)

    feature_signature = {
        name: tf.TensorSpec([None, *values.shape[1:]], values.dtype, name=name)
        for name, values in splits.train.items()
        if is_read(name)
    }
    for function in ("ratings", "like_logits"):
        if hasattr(model, function):
            setattr(
                module,
                function,
                tf.function(getattr(model, function), autograph=False, input_signature=[feature_signature]),
            )
    person = {column.name for column in columns(Role.USER, Role.CONTEXT, Role.HISTORY, among=splits.train)}
    _add_parts(module, model, {name: spec for name, spec in feature_signature.items() if name in person})
    signatures = {"serving_default": serving_default, "evaluate": evaluate}
    for head in module.heads:
        if hasattr(head, "labels"):
            signatures["labels"] = _labels_signature(head.labels, parse)
    tf.saved_model.save(module, directory, signatures=signatures, options=SAVE_OPTIONS)


def _add_parts(module: tf.Module, model: tf.keras.Model, person: dict[str, tf.TensorSpec]) -> None:
    """Adds the functions to which people and movies are told separately, if the model has them."""
    if hasattr(model, "scores"):
        module.read_histories = tf.function(model.read_histories, autograph=False, input_signature=[person])
        read = module.read_histories.get_concrete_function().structured_outputs
        with_read = person | {name: tf.TensorSpec(values.shape, values.dtype) for name, values in read.items()}

        def queries_of(features: Tensors) -> tf.Tensor:
            return model.queries(features, model.movie_vectors())

        def scores_of(queries: tf.Tensor) -> tf.Tensor:
            return model.scores_of(queries, model.movie_vectors())

        @tf.function(autograph=False, input_signature=[with_read])
        def scores(features: Tensors) -> Tensors:
            queries = queries_of(features)
            return {"queries": queries, "scores": scores_of(queries)}

        module.scores = scores
        module.queries = tf.function(queries_of, autograph=False, input_signature=[person])
        width = module.queries.get_concrete_function().structured_outputs.shape[1]
        module.scores_of = tf.function(
            scores_of, autograph=False, input_signature=[tf.TensorSpec([None, width], tf.float32)]
        )
    if hasattr(model, "ratings_of"):
        movies, queries = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.float32)
        module.ratings_of = tf.function(model.ratings_of, autograph=False, input_signature=[person, movies, queries])


def _labels_signature(
    labels_of_features: Callable[[Tensors], Tensors], parse: Callable[[tf.Tensor], tuple[Tensors, Raw]]
) -> Callable[[tf.Tensor], Tensors]:
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def labels(examples: tf.Tensor) -> Tensors:
        features, _ = parse(examples)
        return labels_of_features(features)

    return labels
