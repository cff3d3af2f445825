"""Asks a loaded retrieval model for people's query vectors and the scores of all movies."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.layers.towers import HISTORY_READ, Tensors

# People of whom something is computed at once: so many that the processor is busy, and so few that what is computed of
# a large batch does not need much memory.
AT_ONCE = 64


def alike_after(model: tf.Module) -> int | None:
    """Seconds after somebody's latest rating from which on all moments are alike to a loaded model; None if unknown."""
    return int(model.alike_after.numpy()) if hasattr(model, "alike_after") else None


class Retriever:
    """A loaded retrieval model, of this version or of an earlier one, whose exports have fewer functions.

    A saved module that asks it has to keep the model's variables as attributes of its own.

    Attributes:
      alike_after: see `alike_after`.
      stores_queries: whether query vectors can be computed beforehand, and scores from them.
    """

    def __init__(self, model: tf.Module, features: Iterable[str]):
        """Takes the functions of the model.

        Args:
          model: a loaded SavedModel with the function `scores`.
          features: names of the transformed features of people that it is told.
        """
        self._features = tuple(features)
        self._scores = model.scores
        self._read_histories = getattr(model, "read_histories", None)
        self._queries: Any = getattr(model, "queries", None)
        self._scores_of: Any = getattr(model, "scores_of", None)
        self.alike_after = alike_after(model)
        self.stores_queries = self._queries is not None and self._scores_of is not None

    def read(self, people: Tensors) -> Tensors:
        """What the model reads of histories, once for all moments of asking; nothing if it cannot do so.

        Args:
          people: transformed features of people, [people, ...] by name; others are ignored.
        """
        return {} if self._read_histories is None else self._read_histories(self._told(people))

    def scored(self, people: Tensors) -> Tensors:
        """The query vectors and scores of people, as `trainers.export.signatures` describes them.

        Args:
          people: as for `read`, and the result of `read` if they were read before.
        """
        read = {HISTORY_READ: people[HISTORY_READ]} if HISTORY_READ in people else self.read(people)
        return self._scores(self._told(people) | read)

    def queries(self, people: dict[str, np.ndarray]) -> np.ndarray:
        """The query vectors of any number of people, float32 [people, dim], if the model `stores_queries`."""
        rows = len(next(iter(people.values())))
        parts = [
            self._queries({name: tf.constant(people[name][start : start + AT_ONCE]) for name in self._features}).numpy()
            for start in range(0, rows, AT_ONCE)
        ]
        return np.concatenate(parts)

    def scored_with_stored(self, people: Tensors, queries: tf.Tensor, is_stored: tf.Tensor) -> Tensors:
        """As `scored`, if the model `stores_queries` and those of some people are stored.

        Args:
          people: as for `read`.
          queries: float32 [people, dim], the stored query vectors.
          is_stored: bool [people], whose stored vectors are used. Those of the others are computed, some at once.
        """
        people = self._told(people)
        others = tf.where(~is_stored)

        def ask_some(start: tf.Tensor, queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            places = others[start : start + AT_ONCE]
            some = {name: tf.gather(values, places[:, 0]) for name, values in people.items()}
            return start + AT_ONCE, tf.tensor_scatter_nd_update(queries, places, self._queries(some))

        _, queries = tf.while_loop(
            lambda start, _: start < tf.shape(others)[0], ask_some, (0, queries), parallel_iterations=1
        )
        return {"queries": queries, "scores": self._scores_of(queries)}

    def _told(self, people: Tensors) -> Tensors:
        return {name: people[name] for name in self._features}
