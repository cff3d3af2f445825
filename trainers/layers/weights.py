"""What is known of a weight beside its values: its name in the model, and the vocabulary that its rows belong to."""

import tensorflow as tf

# Keras's own lists of what layers hold: an attribute's name says more than a place in them.
_LISTS = ("_self_tracked_trackables", "_trainable_weights")


def named_weights(model: tf.keras.Model) -> dict[str, tf.Variable]:
    """The trained weights of a model by the attributes that lead to them, such as `query_model._output.kernel`."""
    # Documented for subclasses of tf.Module; Keras names weights by how many layers a process has made so far.
    leaves = model._flatten(
        predicate=lambda leaf: isinstance(leaf, tf.Variable) and leaf.trainable,
        attribute_traversal_key=lambda attribute: (attribute in _LISTS, attribute),
        with_path=True,
    )
    names: dict[str, tf.Variable] = {}
    known = set()
    for path, weight in leaves:
        if weight.ref() not in known:
            known.add(weight.ref())
            names[".".join(str(part) for part in path)] = weight
    return names


def with_vocabulary(weight: tf.Variable, feature: str | None) -> tf.Variable:
    """Notes of which feature's vocabulary a weight has a row for each index; None for no vocabulary."""
    weight.vocabulary_feature = feature
    return weight


def vocabulary_of(weight: tf.Variable) -> str | None:
    """The feature that `with_vocabulary` noted."""
    return getattr(weight, "vocabulary_feature", None)
