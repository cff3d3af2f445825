"""The exported head of a model that predicts likes: its probabilities, and the values that the Evaluator reads."""

import tensorflow as tf

from trainers.baselines import LikeBiases
from trainers.datasets import Splits
from trainers.export.signatures import ExportedBiases
from trainers.export.situations import Raw
from trainers.layers.towers import Tensors
from trainers.likes import is_decided, is_liked
from transform.features import LABEL, transformed_name

# Names of the outputs of the signature `labels`; the signature `evaluate` has the latter, too.
LIKED, WEIGHT = "is_liked", "is_decided"


class LikeHead(tf.Module):
    """Predicts probabilities of a like, and compares them with those of the trivial model of user and movie biases."""

    def __init__(self, model: tf.keras.Model, splits: Splits):
        super().__init__()
        self._logits = model.like_logits
        self.biases = ExportedBiases(LikeBiases.of(splits))

    def serve(self, features: Tensors) -> Tensors:
        return {"like_probability": tf.sigmoid(self._logits(features))}

    def evaluate(self, features: Tensors, raw: Raw) -> Tensors:
        del raw
        logits = self._logits(features)
        bias_logits = self.biases(features)
        liked = tf.cast(is_liked(features[transformed_name(LABEL)]), tf.float32)
        return {
            WEIGHT: tf.cast(is_decided(features[transformed_name(LABEL)]), tf.float32),
            "like_probability": tf.sigmoid(logits),
            "bias_like_probability": tf.sigmoid(bias_logits),
            "log_loss_gain": tf.nn.sigmoid_cross_entropy_with_logits(liked, bias_logits)
            - tf.nn.sigmoid_cross_entropy_with_logits(liked, logits),
        }

    def main_metric(self, features: Tensors, raw: Raw) -> Tensors:
        """The log-loss of each row, in nats; 0 for undecided ratings."""
        del raw
        rating = features[transformed_name(LABEL)]
        losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(is_liked(rating), tf.float32), self._logits(features))
        return {"log_loss": losses * tf.cast(is_decided(rating), tf.float32)}

    def labels(self, features: Tensors) -> Tensors:
        """The label and the metric weight of each row, float32 [batch_size]; the weight of undecided ratings is 0."""
        rating = features[transformed_name(LABEL)]
        return {LIKED: tf.cast(is_liked(rating), tf.float32), WEIGHT: tf.cast(is_decided(rating), tf.float32)}
