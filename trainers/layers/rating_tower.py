"""The rating tower of the ranker and of the joint model: experts, whose mean is the predicted rating.

A tower has two. One expert is a factor model, see `factor_model.py`. The other crosses features (Wang et al. 2021,
https://doi.org/10.1145/3442381.3450078) and reads the rated history with attention, whose query is the movie to rate
(Zhou et al. 2018, https://arxiv.org/abs/1706.06978). Each expert has its own loss, so that their errors differ and
partly cancel out in the mean. So do those of several towers, which start from other weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from trainers.baselines import BIAS_PENALTY, BiasModel
from trainers.datasets import Splits
from trainers.hyperparameters import RatingTowerHyperparameters
from trainers.layers.cross_network import CrossNetwork, FirstProducts
from trainers.layers.factor_model import FactorModel
from trainers.layers.products import batch_product
from trainers.layers.towers import MLP, Tensors, embedding, table_penalty
from transform.features import (
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    LABEL,
    MOVIE_ID,
    Role,
    transformed_name,
)

_HISTORY_UNITS = [32]


class PersonParts(NamedTuple):
    """What the tower knows of a person; it does not depend on the movie to rate.

    Attributes:
      bias: float32 [batch_size], the mean rating and the user's bias, in stars.
      deviation: float32 [batch_size], how many stars more than others the person gave to the movies of their history.
      factors: float32 [batch_size, factor_dim].
      embeddings: float32 [batch_size, user features * embedding_dim], the cross network's input.
      keys: float32 [batch_size, length, attention_dim], of the movies of the history.
      values: float32 [batch_size, length, attention_dim + 2], what attention to a movie of the history adds up; last, 1
        where the history has a rating, else 0.
      present: float32 [batch_size, length], 1 where the history has a rating, else 0.
      products: [batch_size, ...], their part of the first layers' products; None in training, where every pair has a
        person of its own.
    """

    bias: tf.Tensor
    deviation: tf.Tensor
    factors: tf.Tensor
    embeddings: tf.Tensor
    keys: tf.Tensor
    values: tf.Tensor
    present: tf.Tensor
    products: FirstProducts | None = None


class MovieParts(NamedTuple):
    """What the tower knows of movies; it depends on no person, so that an exported model has it as constants.

    Attributes:
      bias: float32 [..., 1], the movie's bias, in stars.
      factors: float32 [..., factor_dim].
      embeddings: float32 [..., movie features * embedding_dim], the cross network's input.
      target: float32 [..., attention_dim], the query of the attention to histories.
      products: [..., ...], as for people.
    """

    bias: tf.Tensor
    factors: tf.Tensor
    embeddings: tf.Tensor
    target: tf.Tensor
    products: FirstProducts | None = None


class Match(NamedTuple):
    """What retrieval towers know of a person and movies.

    Attributes:
      affinity: float32 [batch_size, movies], how well they match.
      state: float32 [batch_size, dim], the vector of the person at the moment of asking; None not to read it.
    """

    affinity: tf.Tensor
    state: tf.Tensor | None = None


class TargetAttention(tf.keras.layers.Layer):
    """Summarises how the person rated the history movies that are similar to the movie to rate.

    The movie to rate attends to the movies of the history. What counts of a rating is its deviation from the mean of
    the movie that it is for.
    """

    def __init__(self, splits: Splits, dim: int, movie_means: tf.Tensor):
        """Makes the tables of target, key and value vectors.

        Args:
          splits: the splits to train on, which have the number of movies.
          dim: width of the vectors.
          movie_means: float32 [movie indices], each movie's mean rating, shrunk towards the mean of all ratings.
        """
        super().__init__()
        self._targets, self._keys, self._values = (
            embedding(splits.movie_size, dim, 0.0, vocabulary=MOVIE_ID) for _ in range(3)
        )
        self._movie_means = movie_means
        self._scale = self.add_weight("scale", shape=[], initializer="ones")

    def targets(self, features: Tensors) -> tf.Tensor:
        """The query vectors of movies to rate: float32 [movies, dim]."""
        return self._targets(features[transformed_name(MOVIE_ID)])

    def history(self, features: Tensors) -> dict[str, tf.Tensor]:
        """Encodes histories: the attributes of `PersonParts` that tell of them."""
        movies = features[transformed_name(HISTORY_MOVIES)]
        ratings = features[transformed_name(HISTORY_RATINGS)]
        # A movie may be in the history without a rating, which is 0 then; it gets no attention here.
        present = tf.cast(ratings > 0, tf.float32)
        deviations = ((ratings - tf.gather(self._movie_means, movies)) * present)[..., tf.newaxis]
        return {
            "deviation": tf.reduce_sum(deviations, axis=[1, 2]) / (tf.reduce_sum(present, axis=1) + BIAS_PENALTY),
            "keys": self._scale * self._keys(movies),
            "values": tf.concat([deviations * self._values(movies), deviations, present[..., tf.newaxis]], axis=2),
            "present": present,
        }

    def attend(self, person: PersonParts, targets: tf.Tensor, training: bool) -> tf.Tensor:
        """Attends to histories.

        Args:
          person: the histories.
          targets: float32 [batch_size, movies, dim], the query vectors of the movies to rate.
          training: whether gradients are needed.

        Returns:
          float32 [batch_size, movies, dim + 1]: the sum of the history movies' value vectors, weighted by attention and
          deviation, and the sum of the deviations, weighted by attention.
        """
        logits = batch_product(targets, person.keys, transpose_right=True, training=training)
        # Events without a rating have no values, and so do not count.
        sums = batch_product(tf.exp(tf.minimum(logits, 20.0)), person.values, training=training)
        # The 1.0 in the denominator is e^0, for a key with logit 0 and no value, so that attention can fall on nothing.
        return sums[..., :-1] / (1.0 + sums[..., -1:])


class RatingTower(tf.keras.layers.Layer):
    """Predicts ratings with both experts, and with those of more towers, which are like this one.

    What is said of people and movies, `person` and `movies`, is of this tower alone; ratings and losses are of all.
    """

    def __init__(self, splits: Splits, hparams: RatingTowerHyperparameters):
        super().__init__()
        # This tower is not among them, so that its weights have the same names whether it is alone or not: by these a
        # warm start finds them.
        one = hparams.model_copy(update={"towers": 1})
        self._others = [RatingTower(splits, one) for _ in range(hparams.towers - 1)]
        biases = BiasModel.of(splits)
        self._factors = FactorModel(splits, hparams, biases)
        self._network = CrossNetwork(splits, hparams, start=biases.mean)
        movie_means = tf.Variable(biases.mean + biases.movies, trainable=False, name="movie_means")
        self._history = TargetAttention(splits, hparams.attention_dim, movie_means)
        self._mlp = MLP(_HISTORY_UNITS, hparams.dropout)
        self._output = tf.keras.layers.Dense(1)
        self._of_state = tf.keras.layers.Dense(2 * hparams.attention_dim)
        if hparams.attention_l2:
            self.add_loss(lambda: table_penalty([self._history], hparams.attention_l2, splits))

    def person(self, features: Tensors) -> PersonParts:
        """Encodes people: from transformed features of the roles user and history, [batch_size, ...] by name."""
        history = self._history.history(features)
        bias, factors = self._factors.person(features, history["deviation"])
        embeddings = self._network.embeddings(features, Role.USER)
        return PersonParts(bias=bias, factors=factors, embeddings=embeddings, **history)

    def movies(self, features: Tensors) -> MovieParts:
        """Encodes movies: from transformed features of the role movie, [movies, ...] by name."""
        embeddings = self._network.embeddings(features, Role.MOVIE)
        return MovieParts(*self._factors.movies(features), embeddings, self._history.targets(features))

    def frozen(self, catalogue: Tensors) -> list[MovieParts]:
        """Encodes all movies once and for all, for a tower whose training has ended.

        Returns:
          Variables, by movie index, of each of the towers.
        """
        made = []
        for tower in self._towers():
            movies = tower.movies(catalogue)
            movies = movies._replace(products=tower._network.first_products(movies.embeddings, Role.MOVIE))
            made.append(tf.nest.map_structure(lambda part: tf.Variable(part, trainable=False), movies))
        return made

    def ratings_of_frozen(
        self, features: Tensors, frozen: Sequence[MovieParts], movies: tf.Tensor, match: Match | None = None
    ) -> tf.Tensor:
        """Predicted ratings of each person for movies of the catalogue, 1 to 5: float32 [batch_size, movies].

        Args:
          features: transformed features of people, [batch_size, ...] by name.
          frozen: from `frozen`.
          movies: int32 [batch_size, movies], movie indices.
          match: extra inputs, which tell how well person and movie match; None for none. Pass the same ones always,
            since they decide the shape of a kernel.
        """
        experts = []
        for tower, of_tower in zip(self._towers(), frozen, strict=True):
            person = tower.person(features)
            person = person._replace(products=tower._network.first_products(person.embeddings, Role.USER))
            of_movies = tf.nest.map_structure(lambda part: tf.gather(part, movies), of_tower)
            experts += tower._experts(person, of_movies, match, training=False)
        return _mean_rating(experts)

    def ratings(self, features: Tensors, match: Match | None = None) -> tf.Tensor:
        """Predicted ratings of pairs, 1 to 5: float32 [batch_size].

        Args:
          features: transformed features.
          match: as for `ratings_of_frozen`, of one movie for each person.
        """
        return tf.squeeze(_mean_rating(self._experts_of_pairs(features, match, training=False)), 1)

    def loss(self, features: Tensors, match: Match | None = None, training: bool = False) -> tf.Tensor:
        """Sum of the experts' mean squared errors, in stars squared.

        Args:
          features: transformed features with the ratings.
          match: as for `ratings_of_frozen`, of one movie for each person.
          training: whether to apply dropout.
        """
        stars = features[transformed_name(LABEL)][:, tf.newaxis]
        experts = self._experts_of_pairs(features, match, training)
        return tf.add_n([tf.reduce_mean(tf.square(predicted - stars)) for predicted in experts])

    def _towers(self) -> list["RatingTower"]:
        return [self, *self._others]

    def _experts_of_pairs(self, features: Tensors, match: Match | None, training: bool) -> list[tf.Tensor]:
        """The predictions of all towers' experts, float32 [batch_size, 1] each."""
        return [
            expert
            for tower in self._towers()
            for expert in tower._experts(tower.person(features), tower._one_each(features), match, training)
        ]

    def _one_each(self, features: Tensors) -> MovieParts:
        """The movie of each row, as a list of one."""
        parts = self.movies(features)
        return tf.nest.map_structure(lambda part: None if part is None else part[:, tf.newaxis], parts)

    def _experts(self, person: PersonParts, movies: MovieParts, match: Match | None, training: bool) -> list[tf.Tensor]:
        """The predictions of this tower's two experts, in stars: float32 [batch_size, movies] each."""
        by_factors = person.bias[:, tf.newaxis] + tf.squeeze(movies.bias, 2)
        by_factors += tf.reduce_sum(movies.factors * person.factors[:, tf.newaxis], axis=2)
        whole = tf.stack([tf.reduce_mean(person.present, axis=1), person.deviation], axis=1)
        shape = tf.shape(movies.embeddings)[:2]
        history = [self._history.attend(person, movies.target, training), _of_each_movie(whole, shape)]
        if match is not None:
            history.append(match.affinity[..., tf.newaxis])
        if match is not None and match.state is not None:
            alone, with_movie = tf.split(self._of_state(match.state), 2, axis=1)
            history += [_of_each_movie(alone, shape), with_movie[:, tf.newaxis] * movies.target]
        from_history = self._output(self._mlp(tf.concat(history, axis=2), training=training))
        if person.products is None or movies.products is None:
            pairs = self._network.behind_embeddings(self._network.pairs(person.embeddings, movies.embeddings), training)
        else:
            pairs = self._network.behind_first_products(
                person.embeddings, movies.embeddings, person.products, movies.products
            )
        return [by_factors, tf.reshape(pairs, shape) + tf.squeeze(from_history, 2)]


def _mean_rating(experts: list[tf.Tensor]) -> tf.Tensor:
    return tf.clip_by_value(tf.add_n(experts) / len(experts), 1.0, 5.0)


def _of_each_movie(people: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Repeats what people have for each of their movies: float32 [batch_size, movies, width] of [batch_size, width]."""
    return tf.broadcast_to(people[:, tf.newaxis], tf.concat([shape, [people.shape[1]]], axis=0))
