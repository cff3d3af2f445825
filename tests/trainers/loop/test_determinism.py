"""Training twice with the same seed gives exactly the same weights."""

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.planted_splits import planted_splits, with_history
from tests.trainers.specs import spec_of
from trainers.datasets import elements_of
from trainers.loop import training

SEQUENCE = {"query": "sequence", "blocks": 2}
# Every test run takes those that together have all layers; settings whose layers others have, too, are nightly.
MODELS = [
    ("dcn", {}),
    ("retrieval", {}),
    pytest.param("retrieval", SEQUENCE, marks=pytest.mark.nightly),
    pytest.param("ranking", {}, marks=pytest.mark.nightly),
    ("ranking", {"towers": 2}),
    pytest.param("joint", {}, marks=pytest.mark.nightly),
    ("joint", SEQUENCE | {"shared_state": True, "state_gradient": 0.5}),
]


@pytest.fixture(scope="module")
def splits():
    return with_history(planted_splits(users=40, movies=30, ratings=600, seed=0))


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_the_same_seed_gives_the_same_weights_and_another_does_not(splits, name, settings, tmp_path):
    spec = spec_of(name, {})

    def train(seed: int) -> list[np.ndarray]:
        hparams = spec.hyperparameters(seed=seed, epochs=2, batch_size=100, embedding_dim=8, **settings)
        tf.keras.utils.set_random_seed(hparams.seed)
        model = spec.build(splits, hparams)
        training.fit(model, splits.train, spec.objective(splits), hparams, str(tmp_path), name)
        found = [weight.numpy() for weight in model.trainable_variables]
        tf.keras.backend.clear_session()
        return found

    once, again, other = train(seed=5), train(seed=5), train(seed=6)
    for one, same in zip(once, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert all(np.abs(one - different).max() > 0 for one, different in zip(once, other, strict=True))


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_no_sum_of_gradients_depends_on_the_timing_of_its_terms(splits, name, settings):
    # AddN accumulates into the first of its inputs that no other operation still reads, so the order of the sum may
    # depend on timing: https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/core/kernels/aggregate_ops.cc.
    # If that input is always one of the first two, the result does not change.
    spec = spec_of(name, {})
    model = spec.build(splits, spec.hyperparameters(embedding_dim=8, l2=0.01, **settings))
    batch = {column: tf.constant(values[:50]) for column, values in elements_of(model, splits.train).items()}
    model.compute_loss(batch)

    @tf.function(autograph=False)
    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(batch, training=True) + tf.add_n(model.losses)
        return [tf.convert_to_tensor(found) for found in tape.gradient(loss, model.trainable_variables)]

    sums = [op for op in gradients.get_concrete_function().graph.get_operations() if op.type == "AddN"]
    assert sums
    unsafe = [op.name for op in sums if len(op.inputs) > 2 and all(len(term.consumers()) > 1 for term in op.inputs[:2])]
    assert unsafe == []
