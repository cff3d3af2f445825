"""TensorFlow operations with gradients that are faster than TensorFlow's own.

The results differ from TensorFlow's by rounding only. The operations are those in which a training step spends most of
its time: the softmax over the whole catalogue, and the lookup of the movies in a batch's histories. All tables use this
lookup: a sparse gradient would save nothing, since Adam updates every row of a table in each step, whether the gradient
names it or not.
"""

from collections.abc import Callable

import tensorflow as tf

Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def lookup(table: tf.Tensor | tf.Variable, indices: tf.Tensor) -> tf.Tensor:
    """Looks up rows of a table: float32 [batch_size, ..., dim].

    The gradient is dense, [rows, dim]. The gradient of `tf.gather` is sparse, and `tf.math.unsorted_segment_sum` has to
    add up its entries for the same row, for which each of its threads reads all indices. Here, each `tf.scatter_nd`
    adds up its entries in one thread, in the order of the indices, so one thread can process the first half of the
    batch while another processes the second.

    Args:
      table: float32 [rows, dim].
      indices: int32 [batch_size, ...].
    """

    @tf.custom_gradient
    def gather_rows(dense: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            row_indices, half, shape = indices[..., tf.newaxis], tf.shape(indices)[0] // 2, tf.shape(dense)
            return (
                tf.scatter_nd(row_indices[:half], upstream[:half], shape)
                + tf.scatter_nd(row_indices[half:], upstream[half:], shape),
            )

        return tf.gather(dense, indices), gradients

    return gather_rows(tf.convert_to_tensor(table))


def softmax_cross_entropies(
    queries: tf.Tensor, candidates: tf.Tensor, biases: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """Computes each query's softmax cross-entropy over all candidates, in nats: float32 [batch_size].

    Let Q be the queries, C the candidates, b the biases, P the softmax of the logits Q C' + b, and Y the one-hot
    encodings of the targets. The gradients with respect to Q, C and b are (P - Y) C, (P - Y)' Q and the column sums of
    P - Y, where each row is weighted by the upstream gradient of its loss. P is computed once, for the losses and the
    gradients. P - Y is never computed: the part of Y is a gather or a scatter.

    Args:
      queries: float32 [batch_size, dim].
      candidates: float32 [movies, dim].
      biases: float32 [movies]; -inf for rows of `candidates` that are not to be predicted.
      targets: int32 [batch_size], the row of each query's target in `candidates`.
    """

    @tf.custom_gradient
    def losses(queries: tf.Tensor, candidates: tf.Tensor, biases: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        logits = tf.matmul(queries, candidates, transpose_b=True) + biases
        softmax = tf.nn.softmax(logits)
        # The log-sum-exp of the logits l, from the largest probability e^0 / sum(e^(l - max l)). That is at least one
        # over the number of candidates, so it does not round to 0 and its logarithm is finite.
        normalizers = tf.reduce_max(logits, axis=1) - tf.math.log(tf.reduce_max(softmax, axis=1))

        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            weights = upstream[:, tf.newaxis]
            query_gradients = weights * (softmax @ candidates - tf.gather(candidates, targets))
            # The column of ones gives the column sums of P, for the biases. (Q' P)' equals P' Q, but transposes only Q
            # and the product, which are much smaller than P.
            weighted = weights * tf.concat([queries, tf.ones_like(weights)], axis=1)
            candidate_sums = tf.transpose(tf.matmul(weighted, softmax, transpose_a=True))
            candidate_sums = tf.tensor_scatter_nd_sub(candidate_sums, targets[:, tf.newaxis], weighted)
            return query_gradients, candidate_sums[:, :-1], candidate_sums[:, -1]

        return normalizers - tf.gather(logits, targets, batch_dims=1), gradients

    return losses(queries, candidates, tf.convert_to_tensor(biases))
