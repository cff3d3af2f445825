"""Spans are found by the numbers of their folders and versions, and a window has no holes unless that is allowed."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.raw_files import DataError, read_movielens
from components.data.sample import generate_sample
from components.ingestion.example_rows import PAST, WITHOUT_SPANS, MovieTable, make_shards
from components.ingestion.spans import Source, Window, find_window
from components.ingestion.splits import Fractions, SplitConfig, Strategy


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("span-10", "span-2", "span-1", "notes"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_folders_are_in_the_order_of_their_numbers(base):
    assert [(number, folder.name) for number, folder in find_window(base, 1, versions=False).folders.items()] == [
        (1, "span-1"),
        (2, "span-2"),
        (10, "span-10"),
    ]


@pytest.mark.parametrize("name", ["span-01", "span-x", "span--1"])
def test_folder_names_without_a_plain_number_are_refused(base, name):
    (base / name).mkdir()
    with pytest.raises(DataError, match=rf"^{name}: the name should be span- and a whole number"):
        find_window(base, 1, versions=False)


def test_a_number_that_metadata_cannot_hold_is_refused(base):
    (base / f"span-{2**63}").mkdir()
    with pytest.raises(DataError, match=r"span-9223372036854775808: the number should be at most 2147483647"):
        find_window(base, 1, versions=False)


def test_a_folder_without_spans_is_refused(tmp_path):
    with pytest.raises(DataError, match="should hold the folders span-1, span-2 and so on; there is none"):
        find_window(tmp_path, 1, versions=False)


def test_the_window_ends_with_the_newest_span(base):
    window = find_window(base, spans=9, versions=False, skip_missing=True)
    assert window == Window({1: base / "span-1", 2: base / "span-2", 10: base / "span-10"}, 2, tuple(range(3, 10)))
    assert (window.newest, window.previous, window.version) == (10, 2, None)
    assert find_window(base, spans=1, versions=False).lacking == ()
    # No more spans are expected than there are, before the first one.
    assert find_window(base, spans=99, versions=False, skip_missing=True).first == 1


def test_the_only_span_is_compared_with_itself(tmp_path):
    (tmp_path / "span-7").mkdir()
    window = find_window(tmp_path, spans=3, versions=False)
    assert (window.first, window.newest, window.previous, window.lacking) == (7, 7, 7, ())


def test_a_hole_in_the_window_names_the_spans_that_are_missing(base):
    with pytest.raises(DataError, match=r"every span from 8 to 10; there is no span 8, 9\. .*missing_spans"):
        find_window(base, spans=3, versions=False)


@given(
    numbers=st.sets(st.integers(0, 12), min_size=1, max_size=9),
    spans=st.integers(1, 14),
    further=st.integers(0, 14),
)
def test_spans_that_are_not_kept_make_no_difference_but_that_they_are_not_read(numbers, spans, further):
    keep = spans + further
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for number in numbers:
            (base / f"span-{number}").mkdir()
        everything = find_window(base, spans, versions=False, skip_missing=True)
        kept = find_window(base, spans, versions=False, skip_missing=True, keep=keep)
        oldest = max(numbers) - keep + 1
        assert kept.folders == {n: path for n, path in everything.folders.items() if n >= oldest}
        assert list(kept.dropped) == sorted(n for n in numbers if n < oldest)
        assert everything.dropped == ()
        assert (kept.first, kept.lacking, kept.newest) == (everything.first, everything.lacking, everything.newest)
        # What models are trained on is all there.
        assert {n for n in numbers if n >= everything.first} <= set(kept.folders)
        before = sorted(set(kept.folders) - {kept.newest})
        assert kept.previous == (before[-1] if before else kept.newest)


def test_the_span_before_the_newest_is_compared_only_if_it_is_kept(base):
    windows = [find_window(base, spans=1, versions=False, keep=keep) for keep in (1, 8, 9, 10, None)]
    assert [window.previous for window in windows] == [10, 10, 2, 2, 2]
    assert [window.dropped for window in windows] == [(1, 2), (1, 2), (1,), (), ()]


def test_a_span_that_is_not_kept_may_be_without_files_and_versions_but_is_not_forgotten(base):
    for name in ("span-9/version-1", "span-10/version-1"):
        (base / name).mkdir(parents=True)
    assert list(find_window(base, spans=2, versions=True, keep=2).folders) == [9, 10]
    with pytest.raises(DataError, match=r"^span-1: should hold the folders version-1"):
        find_window(base, spans=2, versions=True)
    # There were spans before the window, so that one which is missing at its beginning is late, and not the first.
    (base / "span-9").rename(base / "aside")
    with pytest.raises(DataError, match=r"every span from 9 to 10; there is no span 9"):
        find_window(base, spans=2, versions=True, keep=2)


def test_without_spans_there_are_the_files_alone(base):
    window = find_window(base, spans=None, versions=False)
    assert window == Window({0: base}, 0, ())
    assert (window.newest, window.previous, window.version) == (0, 0, None)


def test_only_the_latest_version_of_a_span_is_read(base):
    for name in ("span-1/version-1", "span-1/version-12", "span-2/version-9", "span-10/version-1"):
        (base / name).mkdir()
    folders = find_window(base, 1, versions=True).folders
    assert [str(folder.relative_to(base)) for folder in folders.values()] == [
        *("span-1/version-12", "span-2/version-9", "span-10/version-1")
    ]
    assert find_window(base, spans=1, versions=True).version == 1


def test_a_span_without_versions_is_refused(base):
    with pytest.raises(DataError, match=r"^span-1: should hold the folders version-1, version-2"):
        find_window(base, 1, versions=True)


def test_an_error_in_an_earlier_span_names_that_span(tmp_path):
    for day in (1, 2):
        generate_sample(tmp_path / f"span-{day}", users=5, movies=10, ratings=40)
    (tmp_path / "span-1" / "ratings.dat").write_text("1::1::7::978300760\n")
    source = Source(tmp_path, find_window(tmp_path, spans=1, versions=False), SplitConfig(), 0.0)
    with pytest.raises(DataError, match=r"^span-1: ratings\.dat:1: .*'7'"):
        source.read()


@pytest.mark.parametrize("strategy", [Strategy.RANDOM, Strategy.TEMPORAL, Strategy.TEMPORAL_ROLLING])
@pytest.mark.parametrize("seed", range(5))
def test_of_random_spans_no_row_knows_its_own_movie_and_each_pair_is_in_one_split(tmp_path, strategy, seed):
    rng = np.random.default_rng(seed)
    for span in range(1, 5):
        generate_sample(tmp_path / f"span-{span}", users=12, movies=15, ratings=70, seed=int(rng.integers(2**31)))
    config = SplitConfig(strategy=strategy, fractions=Fractions(train=0.5, eval=0.2, test=0.3), seed=seed)
    source = Source(tmp_path, find_window(tmp_path, spans=2, versions=False), config, 0.0)
    ratings = source.read()
    raw = pd.concat(
        [read_movielens(folder).ratings.assign(span=number) for number, folder in source.window.folders.items()]
    )
    latest = raw.groupby(["user_id", "movie_id"]).tail(1)
    assert len(latest) < len(raw)
    order = ["user_id", "movie_id"]
    pd.testing.assert_frame_equal(
        ratings.table[latest.columns].sort_values(order, ignore_index=True),
        latest.sort_values(order, ignore_index=True),
    )
    pairs = zip(latest["user_id"].tolist(), latest["movie_id"].tolist(), strict=True)
    stars = dict(zip(pairs, latest["rating"].tolist(), strict=True))

    found = []
    movies = MovieTable(ratings.movies, ratings.credits)
    for shard in make_shards(ratings.table, ratings.users, strategy, source.window, shard_rows=50):
        for part in (*WITHOUT_SPANS, PAST):
            columns = {name: column.to_pylist() for name, column in shard.columns(part, movies, 50).items()}
            for row in range(len(columns["user_id"])):
                (user,), (movie,) = columns["user_id"][row], columns["movie_id"][row]
                found.append((user, movie))
                history = columns.get("history_movie_ids", [[]] * (row + 1))[row]
                seen = columns.get("seen_movie_ids", [[]] * (row + 1))[row]
                assert movie not in {*history, *seen}
                assert len(set(history)) == len(history)
                assert len(set(seen)) == len(seen)
                given = columns.get("history_ratings", [[]] * (row + 1))[row]
                assert given == [stars[user, other] for other in history]
    assert sorted(found) == sorted(stars)
