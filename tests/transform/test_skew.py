"""No training-serving skew: a served model computes the same features of a row as Transform writes, bit for bit."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.transform import transform_graph
from transform.features import FEATURES

pytestmark = [pytest.mark.component, pytest.mark.timeout(300)]

LENGTH = 5

_IDS = st.integers(1, 60)
_NAMES = st.sampled_from(["", "Ann Example", "Bo Beispiel", "Çelik Örnek"])


def values(feature):
    """A strategy for one value that the declaration of a feature allows."""
    if feature.name in ("user_id", "movie_id", "history_movie_ids", "seen_movie_ids"):
        return _IDS
    if feature.values or feature.codes:
        return st.sampled_from(feature.values or feature.codes)
    low, high = feature.range
    if feature.dtype == "int64":
        return st.integers(low, high if high is not None else 2**40)
    if feature.dtype == "float32":
        return st.floats(low, high, width=32)
    return _NAMES | st.text(max_size=30)


@st.composite
def rows(draw):
    """Draws a row; any feature may be missing from it."""
    row = {}
    for feature in FEATURES:
        if draw(st.integers(0, 9)):
            longest = feature.max_values or 2 * LENGTH
            row[feature.name] = draw(st.lists(values(feature), min_size=1, max_size=min(longest, 8)))
    return row


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    rng = np.random.default_rng(0)

    def any_row(movie):
        row = {
            "movie_id": [movie],
            "title": [f"Film Number {movie % 7} (19{movie:02d})"],
            "release_year": [1900 + movie],
        }
        row |= {"genres": ["Drama", "War"][: 1 + movie % 2], "director": ["Ann Example"], "star": ["Bo Beispiel"]}
        person = {
            "user_id": [int(rng.integers(1, 40))],
            "gender": ["MF"[movie % 2]],
            "age": [25],
            "occupation": [movie % 21],
        }
        person |= {"zip_code": [f"{rng.integers(10_000, 99_999)}"], "timestamp": [int(rng.integers(2**30))]}
        return row | person | {"rating": [float(rng.integers(1, 6))]}

    return transform_graph.analyze([any_row(m) for m in range(1, 50)], tmp_path_factory.mktemp("skew"), LENGTH)


# There is no shrinking, because every step of it would need a run of Beam.
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(examples=st.lists(rows(), min_size=40, max_size=120))
def test_served_features_equal_those_that_were_trained_on(graph, tmp_path_factory, examples):
    output = tft.TFTransformOutput(str(graph))
    written = transform_graph.write(examples, graph, tmp_path_factory.mktemp("rows"))
    trained = tf.io.parse_example(written, output.transformed_feature_spec())

    layer, serialized = output.transform_features_layer(), [transform_graph.serialize(row) for row in examples]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(requests):
        return layer(tf.io.parse_example(requests, output.raw_feature_spec()))

    together = serve(tf.constant(serialized))
    alone = [serve(tf.constant([each])) for each in serialized]
    assert set(trained) == set(together)
    for name, expected in trained.items():
        assert_same_bits(together[name], expected, name)
        assert_same_bits(tf.concat([each[name] for each in alone], axis=0), expected, name)


def assert_same_bits(found, expected, name):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.numpy().view(np.uint8), expected.numpy().view(np.uint8), err_msg=name)
