"""Operations as TensorFlow has them, with gradients that take it less time.

What they compute is the same but for rounding. They are worth their lines where a training step spends its time: at the
softmax over the whole catalogue, and where a batch's histories look up their movies. All tables are looked up this way,
since Adam moves every row of a table in each step, named by the gradient or not.
"""

from collections.abc import Callable

import tensorflow as tf

Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def lookup(table: tf.Tensor | tf.Variable, indices: tf.Tensor) -> tf.Tensor:
    """Rows of a table: float32 [batch_size, ..., dim].

    The gradient is that of the whole table. That of `tf.gather` names rows, and leaves it to
    `tf.math.unsorted_segment_sum` to add up those of the same index, in which each thread reads all indices. Here a
    thread sums up in the order of the indices: one can have the first half of the batch, another the second.

    Args:
      table: float32 [rows, dim].
      indices: int32 [batch_size, ...].
    """

    @tf.custom_gradient
    def rows(dense: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            places, half, shape = indices[..., tf.newaxis], tf.shape(indices)[0] // 2, tf.shape(dense)
            return (
                tf.scatter_nd(places[:half], upstream[:half], shape)
                + tf.scatter_nd(places[half:], upstream[half:], shape),
            )

        return tf.gather(dense, indices), gradients

    return rows(tf.convert_to_tensor(table))


def softmax_cross_entropies(
    queries: tf.Tensor, candidates: tf.Tensor, biases: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """Cross-entropies of one candidate for each query against all, in nats: float32 [batch_size].

    With P the softmax of the logits Q C' + b, and Y the targets' one-hot encodings, gradients are (P - Y) C,
    (P - Y)' Q and the columns' sums of P - Y, each row weighted by what its loss counts. P is made once, for losses and
    gradients, and P - Y never: Y's part is a lookup.

    Args:
      queries: float32 [batch_size, dim].
      candidates: float32 [movies, dim].
      biases: float32 [movies], -inf for what is no candidate.
      targets: int32 [batch_size], which candidate.
    """

    @tf.custom_gradient
    def losses(queries: tf.Tensor, candidates: tf.Tensor, biases: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        logits = tf.matmul(queries, candidates, transpose_b=True) + biases
        softmax = tf.nn.softmax(logits)
        # The largest probability is e^0 over the sum of all: no logarithm of one that is rounded to 0.
        normalizers = tf.reduce_max(logits, axis=1) - tf.math.log(tf.reduce_max(softmax, axis=1))

        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            weights = upstream[:, tf.newaxis]
            of_queries = weights * (softmax @ candidates - tf.gather(candidates, targets))
            # One more column sums up P itself. Q is turned around, which is much smaller than P.
            weighted = weights * tf.concat([queries, tf.ones_like(weights)], axis=1)
            sums = tf.transpose(tf.matmul(weighted, softmax, transpose_a=True))
            sums = tf.tensor_scatter_nd_sub(sums, targets[:, tf.newaxis], weighted)
            return of_queries, sums[:, :-1], sums[:, -1]

        return normalizers - tf.gather(logits, targets, batch_dims=1), gradients

    return losses(queries, candidates, tf.convert_to_tensor(biases))
