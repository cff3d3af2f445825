"""Warm start: a model begins with what the one before has learnt.

Weights are matched by where they are in the model. Rows that belong to the keys of a vocabulary follow their keys, as
vocabularies are ordered by frequency, and grow: what a key has learnt is not another's.
"""

import logging
import os

import numpy as np
import tensorflow as tf

from trainers.datasets import Splits
from trainers.layers.weights import named_weights, vocabulary_of
from transform.features import vocabulary_name

_logger = logging.getLogger("trainers")

# Names of the exported weights, beside them in the same order; empty for what is not trained.
WEIGHTS, NAMES = "model_variables", "model_variable_names"

_VALUE = ".ATTRIBUTES/VARIABLE_VALUE"


def start_from(base_model: str | None, model: tf.keras.Model, splits: Splits, name: str) -> None:
    """Puts the weights of an exported model into one that is about to be trained, where they fit.

    New rows, and weights of another shape, stay as they were initialised.

    Args:
      base_model: folder of the SavedModel; None where there is none.
      model: not called so far, if need be.
      splits: what it will be trained on.
      name: the model's name in logs.

    Raises:
      ValueError: nothing in it fits.
    """
    if not base_model:
        _logger.info("%s: there is no model to start from; it starts from scratch.", name)
        return
    exported = _read_weights(base_model)
    model.compute_loss({column: values[:1] for column, values in splits.train.items()}, training=False)
    taken = remapped = left = 0
    for path, weight in named_weights(model).items():
        value, feature = exported.get(path), vocabulary_of(weight)
        if value is None or value.shape[1:] != weight.shape[1:]:
            left += 1
        elif feature and (keys := _vocabularies(base_model, splits, feature))[0] != keys[1]:
            weight.assign(rows_by_key(value, *keys, start=weight.numpy()))
            remapped += 1
        elif value.shape == weight.shape:
            weight.assign(value)
            taken += 1
        else:
            left += 1
    if not taken + remapped:
        raise ValueError(
            f"{name}: the model to start from should be an earlier export of this model; received {base_model}, which "
            f"has none of its weights. models.{name}.warm_start=false starts from scratch."
        )
    _logger.info(
        "%s: starts from %s: %d weights taken, %d with rows by key, %d left as initialised",
        *(name, base_model, taken, remapped, left),
    )


def rows_by_key(value: np.ndarray, old: list[bytes], new: list[bytes], start: np.ndarray) -> np.ndarray:
    """Moves rows to where their keys are now.

    Args:
      value: [old rows, ...], of padding, of each old key, and of unknown keys.
      old: the keys of `value`.
      new: the keys of the result.
      start: [new rows, ...], the rows of keys that are new.

    Returns:
      [new rows, ...].
    """
    places = {key: place for place, key in enumerate(old, start=1)}
    sources = np.array([0, *(places.get(key, -1) for key in new), len(old) + 1])
    (known,) = np.nonzero(sources >= 0)
    moved = start.copy()
    moved[known] = value[sources[known]]
    return moved


def _read_weights(saved_model: str) -> dict[str, np.ndarray]:
    try:
        # From its checkpoint alone, which does not take the time of loading functions.
        reader = tf.train.load_checkpoint(os.path.join(saved_model, "variables", "variables"))
    except (tf.errors.OpError, ValueError):
        return {}
    if not reader.has_tensor(f"{NAMES}/{_VALUE}"):
        return {}
    names = reader.get_tensor(f"{NAMES}/{_VALUE}")
    return {name.decode(): reader.get_tensor(f"{WEIGHTS}/{place}/{_VALUE}") for place, name in enumerate(names) if name}


def _vocabularies(saved_model: str, splits: Splits, feature: str) -> tuple[list[bytes], list[bytes]]:
    """The keys of a feature, then and now."""
    vocabulary = vocabulary_name(feature)
    with tf.io.gfile.GFile(os.path.join(saved_model, tf.saved_model.ASSETS_DIRECTORY, vocabulary), "rb") as file:
        old = [line.rstrip(b"\n") for line in file]
    return old, splits.transform.vocabulary_by_name(vocabulary)
