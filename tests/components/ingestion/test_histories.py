"""Splits and histories equal those of plain loops that follow their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingestion.histories import Timeline, is_known
from components.ingestion.splits import EVAL, TEST, TRAIN, Fractions, SplitConfig, Strategy, assign_splits

SPLIT_CONFIGS = st.builds(
    SplitConfig,
    strategy=st.sampled_from(Strategy),
    seed=st.integers(0, 2**70),
    fractions=st.just(Fractions(train=0.5, eval=0.25, test=0.25)),
)


@st.composite
def interactions(draw):
    """Draws arrays of user, movie and time: few users, unique pairs, many ties in time."""
    pairs = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 12)), unique=True, min_size=1, max_size=40))
    times = draw(st.lists(st.integers(0, 6), min_size=len(pairs), max_size=len(pairs)))
    users, movies = np.array(pairs, np.int64).T
    return users, movies, np.array(times, np.int64)


def grid(users: int, movies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    user_id, movie_id = (axis.ravel() for axis in np.meshgrid(np.arange(1, users + 1), np.arange(1, movies + 1)))
    return user_id, movie_id, np.random.default_rng(0).integers(0, 10**6, len(user_id))


def lists(ragged) -> list[list[int]]:
    return [part.tolist() for part in np.split(ragged.values, ragged.offsets[1:-1])]


def known_to(row: int, user_id: np.ndarray, codes: np.ndarray, config: SplitConfig) -> list[int]:
    """Rows of the same user that `row` may know.

    These are the train rows; for a test row of leave-last-out also the eval row; for an eval or test row of
    temporal_rolling the rows of all splits.
    """
    splits = {TRAIN}
    if codes[row] != TRAIN and config.strategy is Strategy.TEMPORAL_ROLLING:
        splits = {TRAIN, EVAL, TEST}
    elif codes[row] == TEST and config.strategy is Strategy.LEAVE_LAST_OUT:
        splits = {TRAIN, EVAL}
    return [other for other in range(len(user_id)) if user_id[other] == user_id[row] and codes[other] in splits]


@pytest.mark.parametrize("code", [TRAIN, EVAL, TEST])
@given(rows=interactions(), config=SPLIT_CONFIGS, length=st.integers(0, 5))
def test_histories_are_the_latest_earlier_known_rows_of_the_user(rows, config, length, code):
    user_id, movie_id, timestamp = rows
    codes = assign_splits(user_id, movie_id, timestamp, config)
    timeline = Timeline.of(user_id, timestamp, is_known(codes, code, config.strategy))
    places = np.flatnonzero(codes[timeline.order] == code)

    found = lists(timeline.histories(length, places)) if len(places) else []

    moments = list(zip(timestamp.tolist(), range(len(user_id)), strict=True))
    for row, history in zip(timeline.order[places], found, strict=True):
        earlier = [other for other in known_to(row, user_id, codes, config) if moments[other] < moments[row]]
        assert history == sorted(earlier, key=moments.__getitem__)[max(0, len(earlier) - length) :]


@pytest.mark.parametrize("code", [EVAL, TEST])
@given(rows=interactions(), config=SPLIT_CONFIGS)
def test_seen_are_all_known_rows_of_the_user_but_only_earlier_ones_if_temporal_rolling(rows, config, code):
    user_id, movie_id, timestamp = rows
    codes = assign_splits(user_id, movie_id, timestamp, config)
    timeline = Timeline.of(user_id, timestamp, is_known(codes, code, config.strategy))
    places = np.flatnonzero(codes[timeline.order] == code)

    found = lists(timeline.seen(places, config.strategy)) if len(places) else []

    for row, seen in zip(timeline.order[places], found, strict=True):
        known = known_to(row, user_id, codes, config)
        if config.strategy is Strategy.TEMPORAL_ROLLING:
            known = [other for other in known if (timestamp[other], other) < (timestamp[row], row)]
        assert sorted(seen) == known


@pytest.mark.parametrize("strategy", Strategy)
def test_held_out_rows_are_known_only_to_held_out_rows_of_two_strategies(strategy):
    codes = np.array([TRAIN, EVAL, TEST], np.int8)
    exceptions = {
        (Strategy.LEAVE_LAST_OUT, TEST): [True, True, False],
        (Strategy.TEMPORAL_ROLLING, EVAL): [True, True, True],
        (Strategy.TEMPORAL_ROLLING, TEST): [True, True, True],
    }
    for code in (TRAIN, EVAL, TEST):
        assert is_known(codes, code, strategy).tolist() == exceptions.get((strategy, code), [True, False, False])


@given(interactions(), SPLIT_CONFIGS)
def test_the_timeline_is_in_the_order_of_user_time_and_row(rows, config):
    user_id, movie_id, timestamp = rows
    codes = assign_splits(user_id, movie_id, timestamp, config)
    order = Timeline.of(user_id, timestamp, codes == TRAIN).order
    keys = [(int(user_id[row]), int(timestamp[row]), int(row)) for row in order]
    assert keys == sorted(keys)
    assert sorted(order.tolist()) == list(range(len(user_id)))


@given(interactions())
def test_leave_last_out_holds_out_the_last_two_of_each_user(rows):
    user_id, movie_id, timestamp = rows
    codes = assign_splits(user_id, movie_id, timestamp, SplitConfig(strategy=Strategy.LEAVE_LAST_OUT))
    for user in np.unique(user_id):
        in_time = sorted(np.flatnonzero(user_id == user), key=lambda row: (timestamp[row], row))
        expected = {1: [TRAIN], 2: [TRAIN, TEST]}.get(len(in_time), [*[TRAIN] * (len(in_time) - 2), EVAL, TEST])
        assert codes[in_time].tolist() == expected


@given(interactions())
def test_temporal_splits_follow_each_other_in_time(rows):
    user_id, movie_id, timestamp = rows
    config = SplitConfig(strategy=Strategy.TEMPORAL, fractions=Fractions(train=0.5, eval=0.25, test=0.25))
    codes = assign_splits(user_id, movie_id, timestamp, config)
    in_time = codes[np.argsort(timestamp, kind="stable")]
    assert (np.diff(in_time) >= 0).all()
    for code, fraction in ((TRAIN, 0.5), (EVAL, 0.25), (TEST, 0.25)):
        assert abs((codes == code).sum() - fraction * len(codes)) <= 1


@given(interactions(), st.integers(0, 2**70), st.data())
def test_random_splits_do_not_depend_on_the_other_rows(rows, seed, data):
    user_id, movie_id, timestamp = rows
    config = SplitConfig(seed=seed)
    codes = assign_splits(user_id, movie_id, timestamp, config)
    some = np.array(data.draw(st.lists(st.sampled_from(range(len(user_id))), min_size=1, unique=True)))
    assert assign_splits(user_id[some], movie_id[some], timestamp[some] + 1, config).tolist() == codes[some].tolist()


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_random_fractions_hold_overall_for_users_and_for_movies(seed):
    user_id, movie_id, timestamp = grid(500, 400)
    fractions = Fractions(train=0.6, eval=0.1, test=0.3)

    codes = assign_splits(user_id, movie_id, timestamp, SplitConfig(seed=seed, fractions=fractions))

    for code, fraction in ((TRAIN, 0.6), (EVAL, 0.1), (TEST, 0.3)):
        is_in = (codes == code).astype(float)
        deviation = np.sqrt(fraction * (1 - fraction))
        assert is_in.mean() == pytest.approx(fraction, abs=4 * deviation / np.sqrt(len(codes)))
        # The shares per user and per movie vary as much as those of independent draws.
        for ids, size in ((user_id, 400), (movie_id, 500)):
            shares = np.bincount(ids, weights=is_in)[1:] / size
            assert shares.std() == pytest.approx(deviation / np.sqrt(size), rel=0.2)


def test_seeds_give_unrelated_splits():
    rows = grid(300, 200)
    first, second = (assign_splits(*rows, SplitConfig(seed=seed)) == TEST for seed in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(first))


def test_swapping_user_and_movie_gives_an_unrelated_split():
    user_id, movie_id, timestamp = grid(300, 300)
    config = SplitConfig()
    there = assign_splits(user_id, movie_id, timestamp, config) == TEST
    back = assign_splits(movie_id, user_id, timestamp, config) == TEST
    off_diagonal = user_id != movie_id
    assert abs(np.corrcoef(there[off_diagonal], back[off_diagonal])[0, 1]) < 0.02


def test_ties_in_time_are_broken_by_the_order_of_the_file():
    user_id, movie_id = np.full(4, 7), np.array([4, 3, 2, 1])
    timestamp = np.array([5, 5, 5, 5])
    codes = assign_splits(user_id, movie_id, timestamp, SplitConfig(strategy=Strategy.LEAVE_LAST_OUT))
    assert codes.tolist() == [TRAIN, TRAIN, EVAL, TEST]
    timeline = Timeline.of(user_id, timestamp, codes == TRAIN)
    assert lists(timeline.histories(10, np.arange(4))) == [[], [0], [0, 1], [0, 1]]


def test_leave_last_out_gives_a_user_with_one_rating_neither_history_nor_held_out_rows():
    user_id, timestamp = np.array([7]), np.array([5])
    codes = assign_splits(user_id, np.array([1]), timestamp, SplitConfig(strategy=Strategy.LEAVE_LAST_OUT))
    assert codes.tolist() == [TRAIN]
    timeline = Timeline.of(user_id, timestamp, codes == TRAIN)
    assert lists(timeline.histories(10, np.arange(1))) == [[]]
