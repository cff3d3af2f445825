"""Weights of two tasks' losses that are learnt along with the tasks.

Each task is taken to have noise of its own, the same in all rows (homoscedastic), and the weights are those by which
the likelihood of both is largest (Kendall, Gal & Cipolla 2018, https://arxiv.org/abs/1705.07115).
"""

import tensorflow as tf


class UncertaintyWeighting(tf.keras.layers.Layer):
    """exp(-s) L + s / 2 for classification and exp(-s) L / 2 + s / 2 for regression, s = log σ² being trained.

    The terms s / 2 keep the weights from falling to 0: a regression's weight settles where exp(s) is its loss, a
    classification's where it is twice its loss.

    Call arguments:
      classification: float32 [], a mean cross-entropy in nats.
      regression: float32 [], a mean squared error.

    Returns:
      float32 [], which may be negative.
    """

    def __init__(self) -> None:
        super().__init__()
        self.classification_log_variance = tf.Variable(0.0, name="classification_log_variance")
        self.regression_log_variance = tf.Variable(0.0, name="regression_log_variance")

    def call(self, classification: tf.Tensor, regression: tf.Tensor) -> tf.Tensor:
        of_classes, of_values = self.classification_log_variance, self.regression_log_variance
        return tf.exp(-of_classes) * classification + tf.exp(-of_values) * regression / 2 + (of_classes + of_values) / 2
