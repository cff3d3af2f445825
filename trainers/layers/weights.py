"""Metadata of weights: their names in the model, and the vocabularies that their rows belong to."""

import tensorflow as tf

# Attributes in which Keras lists the layers and weights of a layer. They are searched last, since the name of another
# attribute says more about a weight than its place in one of these lists.
_KERAS_LISTS = ("_self_tracked_trackables", "_trainable_weights")


def named_weights(model: tf.keras.Model) -> dict[str, tf.Variable]:
    """Names a model's trainable weights by their attribute paths, such as `query_model._output.kernel`."""
    # Keras's own names number the layers that the process has made so far, so they differ between models. `_flatten` is
    # private, but documented for subclasses of tf.Module.
    paths_and_weights = model._flatten(
        predicate=lambda leaf: isinstance(leaf, tf.Variable) and leaf.trainable,
        attribute_traversal_key=lambda attribute: (attribute in _KERAS_LISTS, attribute),
        with_path=True,
    )
    weights: dict[str, tf.Variable] = {}
    named = set()
    for path, weight in paths_and_weights:
        if weight.ref() not in named:
            named.add(weight.ref())
            weights[".".join(str(part) for part in path)] = weight
    return weights


def with_vocabulary(weight: tf.Variable, feature: str | None) -> tf.Variable:
    """Marks a weight as having one row for each index of a feature's vocabulary, and returns it.

    Args:
      weight: the weight to mark.
      feature: raw name of the feature; None if the rows belong to no vocabulary.
    """
    weight.vocabulary_feature = feature
    return weight


def vocabulary_of(weight: tf.Variable) -> str | None:
    """The feature that `with_vocabulary` marked the weight with; None if there is none."""
    return getattr(weight, "vocabulary_feature", None)
