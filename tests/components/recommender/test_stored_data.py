"""What is known of users and movies is read from the raw examples of all spans, the latest by time."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from components.recommender import stored_data
from components.recommender.stored_data import Movies, read_movies, read_users
from tests.transform import transform_graph
from trainers.datasets import with_int32_indices
from transform.features import Role, columns

pytestmark = pytest.mark.component

LENGTH = 4
KNOWN, OUTSIDE = range(1, 16), range(90, 95)
# Who has rated nothing but movies that the catalogue lacks.
STRANGER = 55


def write(rows, folder, split):
    """Writes rows as ExampleGen does, in two files."""
    (folder / f"Split-{split}").mkdir(parents=True, exist_ok=True)
    for number, part in enumerate((rows[::2], rows[1::2])):
        path = folder / f"Split-{split}" / f"data_tfrecord-{number:05d}-of-00002.gz"
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for row in part:
                writer.write(transform_graph.serialize(row))


def movie(number, title=None):
    row = {"movie_id": [number], "title": [title or f"Film {number} (1990)"], "release_year": [1950 + number]}
    return row | {"genres": [("Drama", "War")[number % 2]]}


def ratings(seed, users, rows=80):
    """Rows of random users, whose demographics differ from row to row, such that they tell which row was taken."""
    rng = np.random.default_rng(seed)
    pairs = [(user, number) for user in users for number in ((*KNOWN, *OUTSIDE) if user != STRANGER else OUTSIDE)]
    made = []
    for place, second in zip(rng.permutation(len(pairs))[:rows], rng.permutation(10**6)[:rows], strict=False):
        user, number = pairs[place]
        person = {
            "user_id": [user],
            "gender": [rng.choice(["M", "F"])],
            "age": [int(rng.choice([1, 18, 25, 35, 45, 50, 56]))],
            "occupation": [int(rng.integers(21))],
            "zip_code": [f"{rng.integers(100, 130)}05"],
            "timestamp": [int(10**9 + 100 * second + seed)],
            "rating": [float(rng.integers(1, 6))],
            "history_movie_ids": [1, 2],
        }
        made.append(movie(number) | person)
    return made


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    rows = [row for row in ratings(7, range(1, 9), rows=150) if row["movie_id"][0] in KNOWN]
    rows += [movie(number) for number in KNOWN]
    graph = transform_graph.analyze(rows, tmp_path_factory.mktemp("graph"), LENGTH, without=("director", "star"))
    return tft.TFTransformOutput(str(graph))


@pytest.fixture(scope="module")
def movies(output):
    ids = [0, *(int(key) for key in output.vocabulary_by_name("movie_id_vocabulary")), 0]
    return Movies(np.array(ids), np.array([b""] * len(ids), object))


def spans_of(seed, folder):
    """Two spans: their folders, and all of their rows by split in the order of reading."""
    uris: list[str] = []
    by_split: dict[str, list[transform_graph.Row]] = {"train": [], "eval": [], "test": []}
    for span, users in enumerate(([1, 2, 3, 4, STRANGER], [3, 4, 5, 6, 99])):
        rows = ratings(10 * seed + span, users)
        for split, part in {"train": rows[:60], "eval": rows[60:70], "test": rows[70:]}.items():
            write(part, folder / f"span-{span}", split)
            by_split[split] += part
        uris.append(str(folder / f"span-{span}"))
    return uris, by_split


def table(rows):
    """The rows as a table, sorted by time, with each row itself in the column `row`."""
    columns = {name: [row[name][0] for row in rows] for name in ("user_id", "movie_id", "rating", "timestamp")}
    return pd.DataFrame({**columns, "row": rows}).sort_values("timestamp")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("splits", [("train", "eval", "test"), ("train",)])
def test_users_are_known_by_their_latest_rating_and_all_that_they_rated(
    output, movies, tmp_path, monkeypatch, seed, splits
):
    # Small batches, so that the rows of a user are in several.
    records = stored_data.records
    monkeypatch.setattr(stored_data, "records", lambda uris, split: records(uris, split, 7))
    monkeypatch.setattr(stored_data, "_BATCH_ROWS", 3)
    uris, by_split = spans_of(seed, tmp_path)
    rated = table([row for split in splits for row in by_split[split]])
    index = {movie_id: place for place, movie_id in enumerate(movies.ids.tolist()) if movie_id}
    in_catalogue = rated[rated["movie_id"].isin(index)]
    # Some have rated a movie in both spans.
    assert in_catalogue.duplicated(["user_id", "movie_id"]).any()
    in_catalogue = in_catalogue.drop_duplicates(["user_id", "movie_id"], keep="last")

    users = read_users(uris, output, movies, splits)

    expected_ids = sorted(in_catalogue["user_id"].unique())
    assert users.ids.tolist() == [0, *expected_ids]
    assert STRANGER not in users.ids
    assert STRANGER in rated["user_id"].unique()
    for place, user in enumerate(expected_ids, start=1):
        own = in_catalogue[in_catalogue["user_id"] == user]
        indices = [index[movie_id] for movie_id in own["movie_id"]]
        assert users.seen_by(place).tolist() == indices
        newest_first = (indices[::-1] + [0] * LENGTH)[:LENGTH]
        np.testing.assert_array_equal(users.features["history_movie_ids_xf"][place], newest_first)
        stars = (own["rating"].tolist()[::-1] + [0] * LENGTH)[:LENGTH]
        np.testing.assert_array_equal(users.features["history_ratings_xf"][place], stars)

    # The moment and the demographics are those of the latest rating, also if its movie is not in the catalogue.
    latest = rated.groupby("user_id").tail(1).set_index("user_id").loc[expected_ids]
    assert users.latest.tolist() == [0, *latest["timestamp"]]
    assert not latest["movie_id"].isin(index).all()
    raw = tf.io.parse_example(
        [transform_graph.serialize(row) for row in latest["row"]],
        output.raw_feature_spec(),
    )
    transformed = with_int32_indices(output.transform_features_layer()(raw))
    of_person = {column.name for column in columns(Role.USER, Role.CONTEXT, Role.HISTORY)}
    assert users.features.keys() == of_person
    for name in of_person - {"history_movie_ids_xf", "history_ratings_xf"}:
        np.testing.assert_array_equal(users.features[name][1:], transformed[name], err_msg=name)
        assert users.features[name].dtype == transformed[name].numpy().dtype
    assert users.features["history_movie_ids_xf"].dtype == np.int32
    assert users.features["history_ratings_xf"].dtype == np.float32


def test_row_0_is_an_unknown_user(output, movies, tmp_path):
    users = read_users(spans_of(0, tmp_path)[0], output, movies)
    assert (users.ids[0], users.latest[0], len(users.seen_by(0))) == (0, 0, 0)
    for name, values in users.features.items():
        assert len(values) == len(users.ids)
        assert not values[0].any(), name


@pytest.mark.parametrize(("first", "second", "expected"), [(50, 60, 1), (60, 50, 0), (50, 50, 1)])
def test_the_latest_rating_counts_and_of_equal_times_that_of_the_later_span(
    output, movies, tmp_path, first, second, expected
):
    row = ratings(0, [5])[0] | {"movie_id": [3]}
    spans = [row | {"timestamp": [first], "age": [18]}, row | {"timestamp": [second], "age": [56], "movie_id": [4]}]
    for number, each in enumerate(spans):
        write([each], tmp_path / str(number), "train")
    users = read_users([str(tmp_path / str(number)) for number in range(2)], output, movies)
    assert users.features["age_xf"].tolist() == [0, (2, 7)[expected]]
    assert users.latest.tolist() == [0, max(first, second)]
    newest = [3, 4][expected]
    assert movies.ids[users.features["history_movie_ids_xf"][1]].tolist() == [newest, 7 - newest, 0, 0]


def test_the_title_of_the_latest_span_counts(tmp_path):
    write([movie(1, "Old"), movie(2, "Two"), movie(90, "Outside")], tmp_path / "0", "movies")
    write([movie(3, "Three"), movie(1, "Corrected")], tmp_path / "1", "movies")
    ids = np.array([0, 3, 1, 2, 0])
    read = read_movies([str(tmp_path / "0"), str(tmp_path / "1")], ids)
    np.testing.assert_array_equal(read.ids, ids)
    assert read.titles.tolist() == [b"", b"Three", b"Corrected", b"Two", b""]
    assert read.count == 3
    other_way_round = read_movies([str(tmp_path / "1"), str(tmp_path / "0")], ids)
    assert other_way_round.titles.tolist() == [b"", b"Three", b"Old", b"Two", b""]
