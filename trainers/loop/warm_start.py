"""Warm start: initialises a model with the weights of an earlier export of the same model.

Weights are matched by their attribute paths in the model. If a weight has a row for each key of a vocabulary, its rows
are matched by key: vocabularies are ordered by frequency and grow, so a key's index may differ between the two models.
"""

import logging
import os

import numpy as np
import tensorflow as tf

from trainers.datasets import Splits, elements_of
from trainers.layers.weights import named_weights, vocabulary_of
from transform.features import vocabulary_name

_logger = logging.getLogger("trainers")

# Attributes of the exported module: its variables, and their names in the same order ("" for untrained variables).
WEIGHTS, NAMES = "model_variables", "model_variable_names"

_VALUE = ".ATTRIBUTES/VARIABLE_VALUE"


def start_from(base_model: str | None, model: tf.keras.Model, splits: Splits, name: str) -> None:
    """Copies the weights of an exported model into a model that is about to be trained, where they fit.

    Rows of new keys, and weights of another shape, stay as they were initialised.

    Args:
      base_model: folder of the exported SavedModel; None if there is none.
      model: the model to initialise; it need not have been called yet.
      splits: the splits that it will be trained on.
      name: the model's name in logs.

    Raises:
      ValueError: no weight of the exported model fits.
    """
    if not base_model:
        _logger.info("%s: there is no model to start from; it starts from scratch.", name)
        return
    exported = _read_weights(base_model)
    # This call creates the model's weights.
    elements = elements_of(model, splits.train)
    model.compute_loss({column: values[:1] for column, values in elements.items()}, training=False)
    copied = remapped = skipped = 0
    for path, weight in named_weights(model).items():
        value, feature = exported.get(path), vocabulary_of(weight)
        if value is None or value.shape[1:] != weight.shape[1:]:
            skipped += 1
        elif feature and (keys := _vocabularies(base_model, splits, feature))[0] != keys[1]:
            weight.assign(rows_by_key(value, *keys, start=weight.numpy()))
            remapped += 1
        elif value.shape == weight.shape:
            weight.assign(value)
            copied += 1
        else:
            skipped += 1
    if not copied + remapped:
        raise ValueError(
            f"{name}: the model to start from should be an earlier export of this model; received {base_model}, which "
            f"has none of its weights. models.{name}.warm_start=false starts from scratch."
        )
    _logger.info(
        "%s: starts from %s: %d weights taken, %d with rows matched by key, %d left as initialised",
        *(name, base_model, copied, remapped, skipped),
    )


def rows_by_key(value: np.ndarray, old: list[bytes], new: list[bytes], start: np.ndarray) -> np.ndarray:
    """Reorders the rows of a weight from an old vocabulary to a new one.

    Args:
      value: [old rows, ...], the rows for padding, for each key of `old`, and for unknown keys, in this order.
      old: the keys of the old vocabulary.
      new: the keys of the new vocabulary.
      start: [new rows, ...], initial values, which keys that are not in `old` keep.

    Returns:
      [new rows, ...], in the order of `new`.
    """
    places = {key: place for place, key in enumerate(old, start=1)}
    sources = np.array([0, *(places.get(key, -1) for key in new), len(old) + 1])
    (known,) = np.nonzero(sources >= 0)
    moved = start.copy()
    moved[known] = value[sources[known]]
    return moved


def _read_weights(saved_model: str) -> dict[str, np.ndarray]:
    try:
        # Reading the checkpoint alone is faster than loading the SavedModel with its functions.
        reader = tf.train.load_checkpoint(os.path.join(saved_model, "variables", "variables"))
    except (tf.errors.NotFoundError, tf.errors.DataLossError, ValueError):
        return {}
    if not reader.has_tensor(f"{NAMES}/{_VALUE}"):
        return {}
    names = reader.get_tensor(f"{NAMES}/{_VALUE}")
    return {name.decode(): reader.get_tensor(f"{WEIGHTS}/{place}/{_VALUE}") for place, name in enumerate(names) if name}


def _vocabularies(saved_model: str, splits: Splits, feature: str) -> tuple[list[bytes], list[bytes]]:
    """The keys of a feature's vocabulary in the exported model, and in the present splits."""
    vocabulary = vocabulary_name(feature)
    with tf.io.gfile.GFile(os.path.join(saved_model, tf.saved_model.ASSETS_DIRECTORY, vocabulary), "rb") as file:
        old = [line.rstrip(b"\n") for line in file]
    return old, splits.transform.vocabulary_by_name(vocabulary)
