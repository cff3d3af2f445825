"""Hides parts of what is known of a person in some train rows, so that a model also learns to do without them.

Without it, the vectors for a missing gender or an unknown user would keep their random initial values, because training
rows have a gender and are all of known users; and whoever asks without a history would get an answer that no row ever
taught.
"""

import tensorflow as tf

from trainers.hyperparameters import HiddenShares
from transform.features import USER_ID, Kind, Role, columns

Tensors = dict[str, tf.Tensor]


class PersonDropout(tf.Module):
    """Sets features of a person to 0, which stands for missing, in a random share of the rows.

    Each part is hidden as a whole: the user id, the other features of the user (demographics), the moment, the clock
    (hour and date of the moment, but not how long before it something was), and the history. Who hides demographics or
    history also hides the id, since only people without an id lack these.
    """

    def __init__(self, hparams: HiddenShares):
        """Takes the shares of the parts from the hyper-parameters."""
        super().__init__()
        self._shares = {
            "clock": hparams.clock_dropout,
            "demographics": hparams.demographics_dropout,
            "history": hparams.history_dropout,
            "id": hparams.id_dropout,
            "moment": hparams.moment_dropout,
        }

    def __call__(self, features: Tensors, training: bool) -> Tensors:
        """Returns the features, in training with some of them hidden.

        Args:
          features: transformed features, [batch_size, ...] by name.
          training: whether to hide any.
        """
        if not training:
            return features
        return self.without(features, self.hidden(tf.shape(next(iter(features.values())))[0]))

    @staticmethod
    def without(features: Tensors, hidden: dict[str, tf.Tensor]) -> Tensors:
        """Returns the features with parts of them hidden.

        Args:
          features: transformed features, [rows, ...] by name.
          hidden: as from `hidden`.
        """
        known = dict(features)
        for part, names in _names_by_part(features).items():
            if part in hidden:
                known |= {name: _without(known[name], hidden[part]) for name in names}
        return known

    def hidden(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draws whether to hide each part, in training: bool [rows] by part; a part may be left out if it never is."""
        hidden = {part: tf.random.uniform([rows]) < share for part, share in self._shares.items() if share}
        nothing = tf.zeros([rows], tf.bool)
        demographics, history = hidden.get("demographics", nothing), hidden.get("history", nothing)
        hidden["id"] = hidden.get("id", nothing) | demographics | history
        return hidden


def _names_by_part(features: Tensors) -> dict[str, list[str]]:
    user, context = columns(Role.USER, among=features), columns(Role.CONTEXT, among=features)
    return {
        "id": [column.name for column in user if column.feature.name == USER_ID],
        "demographics": [column.name for column in user if column.feature.name != USER_ID],
        "moment": [column.name for column in context],
        "clock": [column.name for column in context if column.kind != Kind.SECONDS],
        "history": [column.name for column in columns(Role.HISTORY, among=features)],
    }


def _without(values: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reshape(hidden, [-1, *[1] * (len(values.shape) - 1)]), tf.zeros([], values.dtype), values)
