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
            "history_timestamps": [7, 8],
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
    return Movies(np.array(ids), np.array([b""] * len(ids), object), np.array(ids) > 0)


def rated(seed, folder):
    """Writes ratings; returns their rows by split, in the order of reading."""
    rows = ratings(seed, [1, 2, 3, 4, 5, 6, STRANGER, 99], rows=200)
    # The latest rating of user 1 is of a movie that the model does not know.
    late = next(row for row in rows if row["user_id"] == [1]) | {"movie_id": [90], "timestamp": [2 * 10**9]}
    by_split = {"train": [*rows[:60], late], "eval": rows[60:70], "test": rows[70:90], "past": rows[90:]}
    for split, part in by_split.items():
        write(part, folder, split)
    return by_split


def table(rows):
    """The rows as a table, sorted by time, with each row itself in the column `row`."""
    columns = {name: [row[name][0] for row in rows] for name in ("user_id", "movie_id", "rating", "timestamp")}
    return pd.DataFrame({**columns, "row": rows}).sort_values("timestamp")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("splits", [("train", "eval", "test", "past"), ("train",)])
def test_users_are_known_by_their_latest_rating_and_all_that_they_rated(
    output, movies, tmp_path, monkeypatch, seed, splits
):
    # Small batches, so that the rows of a user are in several.
    records = stored_data.records
    monkeypatch.setattr(stored_data, "records", lambda uri, split: records(uri, split, 7))
    monkeypatch.setattr(stored_data, "_BATCH_ROWS", 3)
    by_split = rated(seed, tmp_path)
    every = table([row for split in splits for row in by_split[split]])
    index = {movie_id: place for place, movie_id in enumerate(movies.ids.tolist()) if movie_id}
    in_catalogue = every[every["movie_id"].isin(index)]

    users = read_users(str(tmp_path), output, movies, splits)

    expected_ids = sorted(in_catalogue["user_id"].unique())
    assert users.ids.tolist() == [0, *expected_ids]
    assert STRANGER not in users.ids
    assert STRANGER in every["user_id"].unique()
    for place, user in enumerate(expected_ids, start=1):
        own = in_catalogue[in_catalogue["user_id"] == user]
        indices = [index[movie_id] for movie_id in own["movie_id"]]
        assert users.seen_by(place).tolist() == indices
        newest_first = (indices[::-1] + [0] * LENGTH)[:LENGTH]
        np.testing.assert_array_equal(users.features["history_movie_ids_xf"][place], newest_first)
        stars = (own["rating"].tolist()[::-1] + [0] * LENGTH)[:LENGTH]
        np.testing.assert_array_equal(users.features["history_ratings_xf"][place], stars)
        times = ((own["timestamp"] - 946_684_800).tolist()[::-1] + [0] * LENGTH)[:LENGTH]
        np.testing.assert_array_equal(users.features["history_timestamps_xf"][place], times)

    # The moment and the demographics are those of the latest rating, also if its movie is not in the catalogue.
    latest = every.groupby("user_id").tail(1).set_index("user_id").loc[expected_ids]
    assert users.latest.tolist() == [0, *latest["timestamp"]]
    assert not latest["movie_id"].isin(index).all()
    raw = tf.io.parse_example(
        [transform_graph.serialize(row) for row in latest["row"]],
        output.raw_feature_spec(),
    )
    transformed = with_int32_indices(output.transform_features_layer()(raw))
    of_person = {column.name for column in columns(Role.USER, Role.CONTEXT, Role.HISTORY)}
    assert users.features.keys() == of_person
    assert not users.features["timestamp_seconds_xf"].any()
    lists = {"history_movie_ids_xf", "history_ratings_xf", "history_timestamps_xf"}
    for name in of_person - lists - {"timestamp_seconds_xf"}:
        np.testing.assert_array_equal(users.features[name][1:], transformed[name], err_msg=name)
        assert users.features[name].dtype == transformed[name].numpy().dtype
    assert users.features["history_movie_ids_xf"].dtype == np.int32
    assert users.features["history_ratings_xf"].dtype == np.float32
    assert users.features["history_timestamps_xf"].dtype == np.int32


def test_row_0_is_an_unknown_user(output, movies, tmp_path):
    rated(0, tmp_path)
    users = read_users(str(tmp_path), output, movies)
    assert (users.ids[0], users.latest[0], len(users.seen_by(0))) == (0, 0, 0)
    for name, values in users.features.items():
        assert len(values) == len(users.ids)
        assert not values[0].any(), name


@pytest.mark.parametrize(("first", "second", "expected"), [(50, 60, 1), (60, 50, 0)])
def test_the_latest_rating_counts_in_whichever_order_they_are_read(output, movies, tmp_path, first, second, expected):
    row = ratings(0, [5])[0] | {"movie_id": [3]}
    write([row | {"timestamp": [first], "age": [18]}], tmp_path, "train")
    write([row | {"timestamp": [second], "age": [56], "movie_id": [4]}], tmp_path, "eval")
    for split in ("test", "past"):
        write([], tmp_path, split)
    users = read_users(str(tmp_path), output, movies)
    assert users.features["age_xf"].tolist() == [0, (2, 7)[expected]]
    assert users.latest.tolist() == [0, max(first, second)]
    newest = [3, 4][expected]
    assert movies.ids[users.features["history_movie_ids_xf"][1]].tolist() == [newest, 7 - newest, 0, 0]


def test_ratings_of_one_second_are_in_the_order_of_the_file(output, movies, tmp_path):
    row = ratings(0, [5])[0] | {"timestamp": [50]}
    # Movie after movie, as the person rated them: 3 and 5 are of the eval split, with one train rating before each.
    rated = {"train": {2: 0, 4: 1, 6: 2}, "eval": {3: 1, 5: 2}, "test": {}, "past": {7: 0}}
    for split, places in rated.items():
        write([row | {"movie_id": [number], "place": [place]} for number, place in places.items()], tmp_path, split)
    users = read_users(str(tmp_path), output, movies)
    assert movies.ids[users.seen_by(1)].tolist() == [7, 2, 3, 4, 5, 6]
    assert movies.ids[users.features["history_movie_ids_xf"][1]].tolist() == [6, 5, 4, 3]


def test_without_places_ratings_of_one_second_are_in_the_order_of_reading(output, movies, tmp_path):
    row = ratings(0, [5])[0] | {"timestamp": [50]}
    for split, number in {"train": 6, "eval": 4, "test": 2, "past": 3}.items():
        write([row | {"movie_id": [number]}], tmp_path, split)
    users = read_users(str(tmp_path), output, movies)
    assert movies.ids[users.seen_by(1)].tolist() == [6, 4, 2, 3]


def test_movies_are_those_that_both_the_model_and_the_catalogue_have(tmp_path):
    write([movie(3, "Three"), movie(1, "One"), movie(90, "Newer than the model")], tmp_path, "movies")
    ids = np.array([0, 3, 1, 2, 4, 0])
    # The catalogue has lost 2 and 4, and 1 was no candidate when the model was trained.
    read = read_movies(str(tmp_path), ids, np.array([False, True, False, True, False, False]))
    np.testing.assert_array_equal(read.ids, ids)
    assert read.titles.tolist() == [b"", b"Three", b"One", b"", b"", b""]
    assert read.candidates.tolist() == [False, True, False, False, False, False]
    assert read.count == 1


def test_a_catalogue_of_which_the_model_knows_nothing_is_refused(tmp_path):
    write([movie(90, "Newer than the model")], tmp_path, "movies")
    with pytest.raises(ValueError, match="The catalogue should have movies that the retriever knows; none of 1 is"):
        read_movies(str(tmp_path), np.array([0, 3, 0]), np.array([False, True, False]))
