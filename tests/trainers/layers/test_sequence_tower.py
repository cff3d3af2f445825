"""The sequence tower: a window answers for each of its rows as its own history would, and no row sees later ones."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tests.trainers.planted_splits import planted_splits, with_history
from tests.trainers.specs import no_dropout, spec_of
from trainers import retrieval
from trainers.datasets import elements_of
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.sequence_encoder import gap_basis
from trainers.layers.sequence_tower import SequenceQueryTower
from trainers.layers.towers import HISTORY_READ
from trainers.layers.windows import IS_TARGET, rows_of, windows, without_times
from trainers.loop.training import fit

LENGTH = 12
HISTORY = ("history_movie_ids_xf", "history_ratings_xf", "history_timestamps_xf")


@pytest.fixture(scope="module")
def splits():
    """Splits in which each train row has the history that its user really has, of at most LENGTH events."""
    drawn = with_history(planted_splits(users=40, movies=20, ratings=300, seed=0), LENGTH)
    train, rng = dict(drawn.train), np.random.default_rng(1)
    rows = len(train["rating_xf"])
    # Several ratings of a second, so that only their places tell their order.
    train["timestamp_seconds_xf"] = np.sort(rng.integers(1, 200, rows)).astype(np.int32) * 150
    order = rng.permutation(rows)
    place = np.zeros(rows, np.int32)
    past = {name: np.zeros((rows, LENGTH), train[name].dtype) for name in HISTORY}
    rated = [train[name] for name in ("movie_id_xf", "rating_xf", "timestamp_seconds_xf")]
    for row in range(rows):
        (earlier,) = np.nonzero(train["user_id_xf"][:row] == train["user_id_xf"][row])
        place[row] = len(earlier)
        latest = earlier[::-1][:LENGTH]
        for name, values in zip(HISTORY, rated, strict=True):
            past[name][row, : len(latest)] = values[latest]
    train |= past | {"place_xf": place}
    assert place.max() < LENGTH
    return dataclasses.replace(drawn, train={name: values[order] for name, values in train.items()})


@pytest.fixture(scope="module")
def tower(splits):
    tf.keras.utils.set_random_seed(1)
    hparams = RetrievalHyperparameters(query="sequence", embedding_dim=8, window=5, blocks=2, dropout=0.5, session=600)
    tower = SequenceQueryTower(splits, hparams)
    features = {name: tf.constant(values[:3]) for name, values in splits.train.items()}
    tower(features, tf.zeros([splits.movie_size, 8]))
    rng = np.random.default_rng(0)
    tower.set_weights([rng.normal(size=weight.shape) * 0.3 for weight in tower.weights])
    return tower


@pytest.fixture(scope="module")
def table(splits):
    return tf.random.stateless_normal([splits.movie_size, 8], [1, 2])


def of_windows(tower, window, table):
    inputs = {name: tf.constant(values) for name, values in window.items()}
    cut = window[IS_TARGET]
    vectors = np.zeros([*cut.shape, 8], np.float32)
    vectors[cut] = tower.of_windows(inputs, rows_of(inputs), None, table, training=False)
    return vectors


@pytest.mark.parametrize("size", [1, 3, 5])
def test_windows_hold_every_row_once_in_its_users_order(splits, size):
    cut = windows(splits.train, size)
    there = cut[IS_TARGET]
    assert there.sum() == len(splits.train["rating_xf"])
    assert there[:, 0].all()
    seen: dict[int, list[tuple[int, float]]] = {}
    for row in range(len(there)):
        for place in np.flatnonzero(there[row]):
            user = cut["user_id_xf"][row, place]
            seen.setdefault(user, []).append((cut["movie_id_xf"][row, place], cut["rating_xf"][row, place]))
    for user, rated in seen.items():
        rows = np.flatnonzero(splits.train["user_id_xf"] == user)
        rows = rows[np.argsort(splits.train["place_xf"][rows])]
        assert rated == list(zip(splits.train["movie_id_xf"][rows], splits.train["rating_xf"][rows], strict=True))
    for name, values in cut.items():
        if name not in (*HISTORY, IS_TARGET):
            assert not values[~there].any()


def test_a_rating_that_is_no_row_ends_a_window(splits):
    train = {name: values.copy() for name, values in splits.train.items()}
    later = (train["user_id_xf"] == train["user_id_xf"][0]) & (train["place_xf"] >= 2)
    assert later.any()
    # As if the person had rated something else between the second and the third row.
    train["place_xf"][later] += 1
    before, after = (windows(arrays, 100) for arrays in (splits.train, train))
    assert len(after[IS_TARGET]) == len(before[IS_TARGET]) + 1
    assert after[IS_TARGET].sum() == before[IS_TARGET].sum()


def test_a_window_answers_for_each_row_as_its_own_history_does(splits, tower, table):
    train = splits.train
    cut = windows(train, 5)
    found = of_windows(tower, cut, table)[cut[IS_TARGET]]
    alone = tower({name: tf.constant(values) for name, values in train.items()}, table).numpy()
    order = np.lexsort((train["place_xf"], train["user_id_xf"]))
    np.testing.assert_allclose(found, alone[order], atol=2e-5)
    assert np.abs(found).max() > 0.1


def test_no_row_knows_of_itself_or_of_later_ones(splits, tower, table):
    cut = windows(splits.train, 5)
    before = of_windows(tower, cut, table)
    changed = cut | {"movie_id_xf": cut["movie_id_xf"].copy(), "rating_xf": cut["rating_xf"].copy()}
    changed["movie_id_xf"][:, 2] = 1 + changed["movie_id_xf"][:, 2] % 18
    changed["rating_xf"][:, 2] = 6 - changed["rating_xf"][:, 2]
    after = of_windows(tower, changed, table)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    later = cut[IS_TARGET][:, 3]
    assert np.abs(after[later, 3] - before[later, 3]).max() > 1e-3


def test_what_is_not_known_counts_nothing(splits, tower, table):
    features = {name: values[:50].copy() for name, values in splits.train.items()}
    none = {name: np.zeros_like(features[name]) for name in HISTORY}

    def encode(**changes):
        return tower({name: tf.constant(values) for name, values in (features | changes).items()}, table).numpy()

    # Without a history, its times tell nothing.
    times = {"history_timestamps_xf": features["history_timestamps_xf"]}
    np.testing.assert_array_equal(encode(**none), encode(**(none | times)))
    assert np.isfinite(encode(**none)).all()
    # Without the moment, and without times, a history counts still.
    now = {"timestamp_seconds_xf": np.zeros_like(features["timestamp_seconds_xf"])}
    without_times = {"history_timestamps_xf": np.zeros_like(features["history_timestamps_xf"])}
    for unknown in (now, without_times, now | without_times):
        assert np.abs(encode(**unknown) - encode(**(unknown | none))).max() > 0.01
        assert np.abs(encode(**unknown) - encode()).max() > 0.01


def test_windows_without_times_answer_as_histories_without_times(splits, tower, table):
    cut = windows(splits.train, 5)
    hidden = np.arange(len(cut[IS_TARGET])) % 2 == 0
    inputs = without_times({name: tf.constant(values) for name, values in cut.items()}, tf.constant(hidden))
    found = tower.of_windows(inputs, rows_of(inputs), None, table, training=False).numpy()
    of_hidden = np.repeat(hidden, cut[IS_TARGET].sum(axis=1))
    order = np.lexsort((splits.train["place_xf"], splits.train["user_id_xf"]))
    rows = {name: values[order] for name, values in splits.train.items()}
    for name in ("history_timestamps_xf", "timestamp_seconds_xf"):
        rows[name] = np.where(np.reshape(of_hidden, [-1, *[1] * (rows[name].ndim - 1)]), 0, rows[name])
    alone = tower({name: tf.constant(values) for name, values in rows.items()}, table).numpy()
    np.testing.assert_allclose(found, alone, atol=2e-5)


def test_a_history_is_read_once_for_all_moments_and_people(splits, tower, table):
    features = {name: tf.constant(values[:60]) for name, values in splits.train.items()}
    read = {HISTORY_READ: tower.read(features, table)}
    later = {"timestamp_seconds_xf": features["timestamp_seconds_xf"] + 7}
    nobody = {name: tf.zeros_like(features[name]) for name in ("user_id_xf", "gender_xf")}
    for changes in (later, nobody, later | nobody):
        once, again = tower(features | changes | read, table), tower(features | changes, table)
        np.testing.assert_array_equal(once, again)
        assert np.abs(once - tower(features, table)).max() > 1e-3
    # Where there is no history after all, what was read of it does not count.
    none = {name: tf.zeros_like(features[name]) for name in HISTORY}
    np.testing.assert_array_equal(tower(features | none | read, table), tower(features | none, table))


def test_the_basis_of_gaps_is_piecewise_linear_in_their_logarithms():
    gaps = np.array([-5, 0, 1, 2, 60, 3600, 86_400, 10**7, 2**31 - 20])
    now = 2**31 - 10
    basis = gap_basis(tf.constant(np.full(9, now), tf.int32), tf.constant(now - gaps, tf.int32)).numpy()
    place = np.minimum(np.log(np.clip(gaps, 1, 2**30)) / 1.5, 12)
    np.testing.assert_allclose(basis @ np.arange(13), place, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(basis.sum(axis=1), 1, rtol=1e-5)
    assert not gap_basis(tf.constant([0, 5]), tf.constant([5, 0])).numpy().any()
    # The longest difference that two moments can have does not overflow.
    assert gap_basis(tf.constant(2**31 - 1), tf.constant(-(2**31) + 1)).numpy()[12] == pytest.approx(1)


def test_what_is_asked_after_a_session_is_like_what_is_asked_at_no_known_moment(splits, tower, table):
    features = {name: values[:200] for name, values in splits.train.items()}
    last, own = features["history_timestamps_xf"][:, 0], features["timestamp_seconds_xf"]

    def encode(seconds):
        changed = features | {"timestamp_seconds_xf": seconds.astype(np.int32)}
        return tower({name: tf.constant(values) for name, values in changed.items()}, table).numpy()

    unknown = encode(0 * own)
    for later in (601, 30 * 86_400, 25 * 365 * 86_400):
        np.testing.assert_array_equal(encode(np.where(last > 0, last + later, own)), unknown)
    soon = (last > 0) & (own - last <= 600)
    assert 10 < soon.sum() < 190
    changed = np.abs(encode(own) - unknown).max(axis=1) > 1e-3
    np.testing.assert_array_equal(changed, soon)


def test_times_are_hidden_in_a_share_of_the_windows_and_in_training_alone(splits):
    nothing = no_dropout(RetrievalHyperparameters)
    losses = {}
    for share in (0.0, 0.5):
        settings = nothing | {"times_dropout": share}
        hparams = RetrievalHyperparameters(query="sequence", embedding_dim=8, window=5, blocks=1, **settings)
        tf.keras.utils.set_random_seed(0)
        model = retrieval.SPEC.build(splits, hparams)
        cut = {name: tf.constant(values) for name, values in elements_of(model, splits.train).items()}
        losses[share] = [float(model.compute_loss(cut, training=training)) for training in (False, True)]
    assert losses[0.0][0] == pytest.approx(losses[0.0][1], rel=1e-6)
    assert losses[0.5][0] == pytest.approx(losses[0.0][0], rel=1e-6)
    assert losses[0.5][1] != pytest.approx(losses[0.5][0], rel=1e-6)


def test_windows_of_whole_rows_hold_what_other_windows_hold_and_each_rows_history(splits):
    train, whole, cut = splits.train, windows(splits.train, 5, whole_rows=True), windows(splits.train, 5)
    assert whole.keys() == {*train, IS_TARGET}
    for name, values in cut.items():
        np.testing.assert_array_equal(whole[name][:, 0] if name in HISTORY else whole[name], values)
    order = np.lexsort((train["place_xf"], train["user_id_xf"]))
    there = whole[IS_TARGET]
    for name, values in train.items():
        np.testing.assert_array_equal(whole[name][there], values[order])
        assert not whole[name][~there].any()


@pytest.mark.parametrize("changes", [{}, {"loss": "in_batch"}, {"positives": "liked", "history_dropout": 0.5}])
def test_windows_are_learnt_from(splits, tmp_path, changes):
    hparams = RetrievalHyperparameters(
        query="sequence", embedding_dim=8, window=5, blocks=1, batch_size=16, epochs=4, learning_rate=0.02, **changes
    )
    losses = []
    for epochs in (0, 4):
        tf.keras.utils.set_random_seed(0)
        model = retrieval.SPEC.build(splits, hparams)
        cut = {name: tf.constant(values) for name, values in elements_of(model, splits.train).items()}
        if epochs:
            fit(model, splits.train, retrieval.SPEC.objective(splits), hparams, str(tmp_path), "retrieval")
        losses.append(float(model.compute_loss(cut, training=False)))
    assert losses[1] < losses[0] - 0.05


@pytest.mark.parametrize("positives", ["watched", "liked"])
@pytest.mark.parametrize("name", ["retrieval", "joint"])
def test_the_loss_of_a_batch_is_the_same_in_parts(splits, name, positives):
    spec = spec_of(name, {})
    hparams = spec.hyperparameters(query="sequence", embedding_dim=8, window=5, blocks=1, positives=positives)
    model = spec.build(splits, hparams)
    cut = elements_of(model, splits.train)

    def loss(some):
        return float(model.compute_loss({name: tf.constant(values[some]) for name, values in cut.items()}))

    count = len(cut[IS_TARGET])
    parts = [slice(0, 7), slice(7, count)]
    rows = [cut[IS_TARGET][part].sum() for part in parts]
    assert rows[0] / 7 != pytest.approx(rows[1] / (count - 7), rel=0.01)
    shares = [7 / count, 1 - 7 / count]
    assert sum(share * loss(part) for share, part in zip(shares, parts, strict=True)) == pytest.approx(
        loss(slice(None)), rel=1e-5
    )


def test_heads_have_to_divide_the_width():
    with pytest.raises(ValidationError, match="embedding_dim should be a multiple of attention_heads"):
        RetrievalHyperparameters(query="sequence", embedding_dim=9)
