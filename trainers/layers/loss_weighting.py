"""Weights of two tasks' losses, which are learnt along with the tasks.

Each task is assumed to have its own noise, the same in all rows (homoscedastic). The learnt weights maximise the
likelihood of both tasks (Kendall, Gal & Cipolla 2018, https://arxiv.org/abs/1705.07115).
"""

import tensorflow as tf


class UncertaintyWeighting(tf.keras.layers.Layer):
    """Adds exp(-s) L + s / 2 of the classification and exp(-s) L / 2 + s / 2 of the regression.

    L is a task's loss and s = log σ² its trained log-variance. The terms s / 2 keep the weights exp(-s) from falling to
    0: exp(s) settles at the loss for the regression, and at twice the loss for the classification.

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
        s_c, s_r = self.classification_log_variance, self.regression_log_variance
        return tf.exp(-s_c) * classification + tf.exp(-s_r) * regression / 2 + (s_c + s_r) / 2
