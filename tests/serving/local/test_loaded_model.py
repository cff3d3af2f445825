"""A SavedModel is loaded with all its signatures, whatever their inputs, and each is called once."""

import pytest

from serving.local.errors import ServingError

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import tensorflow as tf

    from serving.local.loaded_model import load_model

    class Odd(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
        def any_rank(self, x):
            return {"rank": tf.rank(x)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def picky(self, x):
            tf.debugging.assert_positive(x, message="x should be positive")
            return {"y": 2 * x}

    module = Odd()
    path = tmp_path_factory.mktemp("odd") / "1"
    tf.saved_model.save(module, str(path), signatures={"any_rank": module.any_rank, "picky": module.picky})
    return load_model("odd", 1, path)


def test_inputs_of_any_rank_are_served(model):
    import numpy as np

    assert model.predict({"x": np.zeros([1, 2, 3], np.float32)}, "any_rank")["rank"] == 3


def test_a_model_that_refuses_zeros_is_served(model):
    import numpy as np

    assert model.predict({"x": np.ones(2, np.float32)}, "picky")["y"].tolist() == [2, 2]
    with pytest.raises(ServingError, match="x should be positive") as caught:
        model.predict({"x": np.zeros(1, np.float32)}, "picky")
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert "Op:" not in caught.value.message
