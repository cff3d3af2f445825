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
from trainers.layers import sequence_tower
from trainers.layers.sequence_encoder import gap_basis
from trainers.layers.sequence_tower import SequenceQueryTower
from trainers.layers.towers import HISTORY_READ
from trainers.layers.windows import EVENT, FIRST, IS_TARGET, rows_of, windows, without_times
from trainers.loop.training import fit
from transform.features import TIMESTAMP, Kind, Role, columns, transformed_name

LONGEST = 12
HISTORY = ("history_movie_ids_xf", "history_ratings_xf", "history_timestamps_xf")


def splits_with(length):
    """Splits in which each train row has the history that its user really has, of at most `length` events."""
    drawn = with_history(planted_splits(users=40, movies=20, ratings=300, seed=0), length)
    train, rng = dict(drawn.train), np.random.default_rng(1)
    rows = len(train["rating_xf"])
    # Several ratings of a second, so that only their places tell their order.
    train["timestamp_seconds_xf"] = np.sort(rng.integers(1, 200, rows)).astype(np.int32) * 150
    order = rng.permutation(rows)
    place = np.zeros(rows, np.int32)
    past = {name: np.zeros((rows, length), train[name].dtype) for name in HISTORY}
    rated = [train[name] for name in ("movie_id_xf", "rating_xf", "timestamp_seconds_xf")]
    for row in range(rows):
        (earlier,) = np.nonzero(train["user_id_xf"][:row] == train["user_id_xf"][row])
        place[row] = len(earlier)
        latest = earlier[::-1][:length]
        for name, values in zip(HISTORY, rated, strict=True):
            past[name][row, : len(latest)] = values[latest]
    train |= past | {"place_xf": place}
    assert 8 < place.max() < LONGEST
    return dataclasses.replace(drawn, train={name: values[order] for name, values in train.items()})


@pytest.fixture(scope="module")
def splits():
    """Splits in which all of a person's ratings fit into one window."""
    return splits_with(LONGEST)


@pytest.fixture(scope="module")
def short():
    """Splits with more ratings of many people than fit into one window."""
    return splits_with(4)


def tower_of(splits):
    tf.keras.utils.set_random_seed(1)
    hparams = RetrievalHyperparameters(query="sequence", embedding_dim=8, blocks=2, dropout=0.5, session=600)
    tower = SequenceQueryTower(splits, hparams)
    features = {name: tf.constant(values[:3]) for name, values in splits.train.items()}
    tower(features, tf.zeros([splits.movie_size, 8]))
    rng = np.random.default_rng(0)
    tower.set_weights([rng.normal(size=weight.shape) * 0.3 for weight in tower.weights])
    return tower


@pytest.fixture(scope="module")
def tower(splits):
    return tower_of(splits)


@pytest.fixture(scope="module")
def table(splits):
    return tf.random.stateless_normal([splits.movie_size, 8], [1, 2])


def of_windows(tower, window, table):
    inputs = {name: tf.constant(values) for name, values in window.items()}
    cut = window[IS_TARGET]
    vectors = np.zeros([*cut.shape, 8], np.float32)
    vectors[cut] = tower.of_windows(inputs, rows_of(inputs), None, table, training=False)
    return vectors


def rows_in(train, cut):
    """The number of the train row that is asked in each place; the rating of a movie by a person is one row."""
    numbers = {pair: row for row, pair in enumerate(zip(train["user_id_xf"], train["movie_id_xf"], strict=True))}
    there = cut[IS_TARGET]
    return np.array([numbers[pair] for pair in zip(cut["user_id_xf"][there], cut["movie_id_xf"][there], strict=True)])


def known_events(cut):
    """How many events the row in each place knows, as the window says: int [windows, length]."""
    there = cut[EVENT[0]] > 0
    places = np.arange(there.shape[1])
    knows = (places <= places[:, np.newaxis]) & (places >= cut[FIRST][..., np.newaxis]) & there[:, np.newaxis]
    return knows.sum(axis=2)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, LONGEST])
def test_windows_ask_every_row_once_after_the_latest_events_before_it(length):
    train = splits_with(length).train
    cut = windows(train)
    there = cut[IS_TARGET]
    rows = rows_in(train, cut)
    assert sorted(rows) == list(range(len(train["rating_xf"])))
    for name, values in cut.items():
        assert values.shape[1] == max(length, 2)
        if name not in (*EVENT, FIRST, IS_TARGET):
            np.testing.assert_array_equal(values[there], train[name][rows])
            assert not values[~there].any()
    known, place = known_events(cut)[there], train["place_xf"][rows]
    assert (known >= np.minimum(place, max(length, 2) // 2)).all()
    assert (known <= place).all()
    # The latest event is in the place where the row is asked, the one before it in the place before, and so on.
    window, places = np.nonzero(there)
    for event, history in zip(EVENT, HISTORY, strict=True):
        for back in range(length):
            some = known > back
            np.testing.assert_array_equal(
                cut[event][window[some], places[some] - back], train[history][rows[some], back]
            )


def test_windows_are_full():
    train = splits_with(LONGEST).train
    # No two windows have room for each other's rows.
    used = windows(train)[IS_TARGET].sum(axis=1)
    assert np.sort(used)[:2].sum() > LONGEST


def test_a_rating_that_is_no_row_ends_what_a_window_knows(splits):
    train = {name: values.copy() for name, values in splits.train.items()}
    # As if the people had rated something else before their third row.
    later = train["place_xf"] >= 2
    train["place_xf"][later] += 1
    for value, history in zip((17, 3, 7), HISTORY, strict=True):
        train[history][later] = np.insert(train[history][later], 0, value, axis=1)[:, :LONGEST]
    cut = windows(train)
    there, rows = cut[IS_TARGET], rows_in(train, cut)
    window, places = np.nonzero(there)
    thirds = train["place_xf"][rows] == 3
    assert thirds.sum() > 10
    for event, value in zip(EVENT, (17, 3, 7), strict=True):
        assert (cut[event][window[thirds], places[thirds]] == value).all()
    assert (known_events(cut)[there][thirds] == 3).all()


def test_a_window_answers_for_each_row_as_its_own_history_does(splits, short, tower, table):
    for some, of_them in ((splits, tower), (short, tower_of(short))):
        train, cut = some.train, windows(some.train)
        found = of_windows(of_them, cut, table)[cut[IS_TARGET]]
        rows, known = rows_in(train, cut), known_events(cut)[cut[IS_TARGET]]
        assert (known < np.count_nonzero(train[HISTORY[0]], axis=1)[rows]).any() == (some is short)
        own = {name: values[rows] for name, values in train.items()}
        own |= {name: np.where(np.arange(own[name].shape[1]) < known[:, np.newaxis], own[name], 0) for name in HISTORY}
        alone = of_them({name: tf.constant(values) for name, values in own.items()}, table).numpy()
        np.testing.assert_allclose(found, alone, atol=2e-5)
        assert np.abs(found).max() > 0.1


def test_no_row_knows_of_itself_of_later_ones_or_of_other_people(splits, tower, table):
    cut = windows(splits.train)
    before = of_windows(tower, cut, table)
    # In a window of several people, the second event of the first of them changes.
    shared = np.flatnonzero((cut[FIRST].max(axis=1) > 2) & (cut[FIRST][:, 2] == 0) & cut[IS_TARGET][:, 2])[0]
    place = 2
    changed = cut | {name: cut[name].copy() for name in EVENT}
    changed[EVENT[0]][shared, place] = 1 + changed[EVENT[0]][shared, place] % 18
    changed[EVENT[1]][shared, place] = 6 - changed[EVENT[1]][shared, place]
    after = of_windows(tower, changed, table)
    knows = np.zeros(cut[IS_TARGET].shape, bool)
    knows[shared] = (cut[FIRST][shared] == 0) & (np.arange(LONGEST) >= place) & cut[IS_TARGET][shared]
    assert (cut[IS_TARGET][shared] & (cut[FIRST][shared] > place)).any()
    np.testing.assert_array_equal(after[~knows], before[~knows])
    assert (np.abs(after[knows] - before[knows]).max(axis=-1) > 1e-3).all()


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
    cut = windows(splits.train)
    hidden = np.arange(len(cut[IS_TARGET])) % 2 == 0
    inputs = without_times({name: tf.constant(values) for name, values in cut.items()}, tf.constant(hidden))
    found = tower.of_windows(inputs, rows_of(inputs), None, table, training=False).numpy()
    of_hidden = np.repeat(hidden, cut[IS_TARGET].sum(axis=1))
    rows = {name: values[rows_in(splits.train, cut)] for name, values in splits.train.items()}
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
        # The same sums in another order, as the last event is among the others or apart from them.
        np.testing.assert_allclose(once, again, rtol=0, atol=1e-6)
        assert np.abs(once - tower(features, table)).max() > 1e-3
    np.testing.assert_array_equal(tower(features, table, training=True), tower(features, table))
    # Where there is no history after all, what was read of it does not count.
    none = {name: tf.zeros_like(features[name]) for name in HISTORY}
    np.testing.assert_allclose(tower(features | none | read, table), tower(features | none, table), rtol=0, atol=1e-6)


@pytest.mark.parametrize("people", [0, 1, 7, 20])
def test_long_histories_are_encoded_some_at_once(splits, tower, table, monkeypatch, people):
    features = {name: tf.constant(values[:people]) for name, values in splits.train.items()}
    whole = tower(features, table), tower.read(features, table)
    monkeypatch.setattr(sequence_tower, "_NEVER_SLICED", LONGEST - 1)
    monkeypatch.setattr(sequence_tower, "_PAIRS_AT_ONCE", 7 * LONGEST**2)
    encoder, sizes = tower._encoder, []
    weights = encoder._weights

    def counted(present, *more):
        sizes.append(len(present))
        return weights(present, *more)

    monkeypatch.setattr(encoder, "_weights", counted)
    for once, in_slices in zip(whole, (tower(features, table), tower.read(features, table)), strict=True):
        assert in_slices.shape == once.shape
        np.testing.assert_allclose(in_slices, once, rtol=0, atol=1e-6)
    assert sum(sizes) == 2 * people
    assert max(sizes) == min(people, 7)
    # As an export traces it, for any number of people, which cannot be counted then.
    monkeypatch.setattr(encoder, "_weights", weights)
    signature = {name: tf.TensorSpec([None, *values.shape[1:]], values.dtype) for name, values in features.items()}
    traced = tf.function(lambda given: tower(given, table), autograph=False, input_signature=[signature])
    np.testing.assert_allclose(traced(features), whole[0], rtol=0, atol=1e-6)


def test_the_basis_of_gaps_is_piecewise_linear_in_their_logarithms():
    gaps = np.array([-5, 0, 1, 2, 60, 3600, 86_400, 10**7, 2**31 - 20])
    now = 2**31 - 10
    basis = gap_basis(tf.constant(np.full(9, now), tf.int32), tf.constant(now - gaps, tf.int32)).numpy()
    place = np.minimum(np.log(np.maximum(gaps, 1)) / 1.5, 12)
    np.testing.assert_allclose(basis @ np.arange(13), place, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(basis.sum(axis=1), 1, rtol=1e-5)
    assert not gap_basis(tf.constant([0, 5]), tf.constant([5, 0])).numpy().any()
    # The longest difference that two moments can have does not overflow.
    assert gap_basis(tf.constant(2**31 - 1), tf.constant(-(2**31) + 1)).numpy()[12] == pytest.approx(1)


def test_what_is_asked_after_a_session_is_like_what_is_asked_at_no_known_moment(splits, table):
    seconds = splits.train["timestamp_seconds_xf"]
    hour = {transformed_name(TIMESTAMP, Kind.HOUR): (1 + seconds // 3600 % 24).astype(np.int32)}
    tower = tower_of(dataclasses.replace(splits, train=splits.train | hour))
    features = {name: values[:200] for name, values in (splits.train | hour).items()}
    last, own = features["history_timestamps_xf"][:, 0], features["timestamp_seconds_xf"]
    # The hour tells of the moment, too.
    moment = {column.name: features[column.name] for column in columns(Role.CONTEXT, among=features)}
    assert moment.keys() == {*hour, "timestamp_seconds_xf"}

    def encode(seconds, context=moment):
        changed = features | context | {"timestamp_seconds_xf": seconds.astype(np.int32)}
        return tower({name: tf.constant(values) for name, values in changed.items()}, table).numpy()

    unknown = encode(0 * own, {name: np.zeros_like(values) for name, values in moment.items()})
    for later in (601, 30 * 86_400, 25 * 365 * 86_400, -601, -30 * 86_400):
        np.testing.assert_array_equal(encode(np.where(last > 0, last + later, own)), unknown)
    # Who has rated nothing is in no session, not even soon after 0, which stands for a time that is not known.
    assert (last == 0).any()
    np.testing.assert_array_equal(encode(np.where(last > 0, last + 601, 5)), unknown)
    soon = (last > 0) & (own - last <= 600)
    assert 10 < soon.sum() < 190
    changed = np.abs(encode(own) - unknown).max(axis=1) > 1e-3
    np.testing.assert_array_equal(changed, soon)


def test_times_are_hidden_in_a_share_of_the_windows_and_in_training_alone(splits):
    nothing = no_dropout(RetrievalHyperparameters)
    losses = {}
    for share in (0.0, 0.5):
        settings = nothing | {"times_dropout": share}
        hparams = RetrievalHyperparameters(query="sequence", embedding_dim=8, blocks=1, **settings)
        tf.keras.utils.set_random_seed(0)
        model = retrieval.SPEC.build(splits, hparams)
        cut = {name: tf.constant(values) for name, values in elements_of(model, splits.train).items()}
        losses[share] = [float(model.compute_loss(cut, training=training)) for training in (False, True)]
    assert losses[0.0][0] == pytest.approx(losses[0.0][1], rel=1e-6)
    assert losses[0.5][0] == pytest.approx(losses[0.0][0], rel=1e-6)
    assert losses[0.5][1] != pytest.approx(losses[0.5][0], rel=1e-6)


def test_windows_of_whole_rows_hold_what_other_windows_hold_and_all_features_of_each_row(splits):
    train, whole, cut = splits.train, windows(splits.train, whole_rows=True), windows(splits.train)
    assert whole.keys() == {*train, *EVENT, FIRST, IS_TARGET}
    for name, values in cut.items():
        np.testing.assert_array_equal(whole[name], values)
    there, rows = whole[IS_TARGET], rows_in(train, cut)
    for name, values in train.items():
        np.testing.assert_array_equal(whole[name][there], values[rows])
        assert not whole[name][~there].any()
    hidden = without_times({name: tf.constant(values) for name, values in whole.items()}, tf.ones(len(there), tf.bool))
    for name in (EVENT[2], "history_timestamps_xf", "timestamp_seconds_xf"):
        assert whole[name].any()
        assert not hidden[name].numpy().any()


@pytest.mark.parametrize("changes", [{}, {"loss": "in_batch"}, {"positives": "liked", "history_dropout": 0.5}])
def test_windows_are_learnt_from(splits, tmp_path, changes):
    hparams = RetrievalHyperparameters(
        query="sequence", embedding_dim=8, blocks=1, batch_size=16, epochs=4, learning_rate=0.02, **changes
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
    hparams = spec.hyperparameters(query="sequence", embedding_dim=8, blocks=1, positives=positives)
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
