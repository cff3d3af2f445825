"""The Transform graph gives a few rows the features that were worked out by hand."""

import calendar
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.transform import transform_graph
from transform.features import Kind, columns
from transform.moments import seconds
from transform.preprocessing import standardized

pytestmark = pytest.mark.component

ROWS: list[dict[str, list[Any]]] = [
    {
        "user_id": [1],
        "gender": ["F"],
        "age": [25],
        "occupation": [3],
        "zip_code": ["02139"],
        "timestamp": [978300760],
        "movie_id": [10],
        "title": ["Toy Story (1995)"],
        "release_year": [1995],
        "genres": ["Comedy", "Drama"],
        "history_movie_ids": [20, 999, 30],
        "history_ratings": [5.0, 1.0, 3.0],
        "history_timestamps": [946_684_800, 978_300_700, 978_300_750],
        "place": [7],
        "rating": [4.0],
    },
    {
        "user_id": [2],
        "gender": ["M"],
        "age": [35],
        "occupation": [3],
        "zip_code": ["02150"],
        "timestamp": [978300860],
        "movie_id": [20],
        "title": ["Story, A (1990)"],
        "release_year": [1990],
        "genres": ["Drama"],
        "rating": [2.0],
    },
    {"movie_id": [30], "title": ["L'Été (1980)"], "release_year": [1980], "genres": ["War"], "director": ["Somebody"]},
]
LENGTH = 4


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return transform_graph.analyze(ROWS, tmp_path_factory.mktemp("transform"), LENGTH)


@pytest.fixture(scope="module")
def transformed(graph):
    return apply(graph, ROWS)


def apply(graph, rows):
    """The transformed features of rows, as a served model computes them."""
    output = tft.TFTransformOutput(str(graph))
    raw = tf.io.parse_example([transform_graph.serialize(row) for row in rows], output.raw_feature_spec())
    return {name: value.numpy() for name, value in output.transform_features_layer()(raw).items()}


def test_every_feature_except_those_for_evaluation_is_transformed(transformed):
    assert set(transformed) == {column.name for column in columns()}
    assert all(len(values) == len(ROWS) for values in transformed.values())


def test_missing_categories_are_zero_and_present_ones_are_not(transformed):
    for column in columns():
        if column.kind in (Kind.CATEGORY, Kind.BUCKETS, Kind.HOUR, Kind.WEEKDAY):
            present = [column.feature.name in row for row in ROWS]
            np.testing.assert_array_equal(transformed[column.name] > 0, present)


def test_equal_values_share_an_index(transformed):
    occupation, zip_code = transformed["occupation_xf"], transformed["zip_code_xf"]
    assert occupation[0] == occupation[1]
    assert zip_code[0] == zip_code[1]  # only the first three digits count
    assert len(set(transformed["movie_id_xf"])) == 3


def test_histories_are_newest_first_without_unknown_movies(transformed):
    movie = transformed["movie_id_xf"]
    np.testing.assert_array_equal(transformed["history_movie_ids_xf"][0], [movie[2], movie[1], 0, 0])
    np.testing.assert_array_equal(transformed["history_ratings_xf"][0], [3, 5, 0, 0])
    # In seconds since 2000, whose first second is taken for the next, as 0 stands for missing.
    np.testing.assert_array_equal(transformed["history_timestamps_xf"][0], [31_615_950, 1, 0, 0])
    np.testing.assert_array_equal(transformed["place_xf"], [7, 0, 0])
    np.testing.assert_array_equal(transformed["timestamp_seconds_xf"], [31_615_960, 31_616_060, 0])
    np.testing.assert_array_equal(transformed["history_movie_ids_xf"][1:], 0)


def test_titles_share_words_whatever_their_case_and_lose_their_year(transformed):
    first, second, third = transformed["title_xf"]
    assert np.count_nonzero(first) == 2
    assert np.count_nonzero(second) == 2
    assert first[1] == second[0]
    assert not set(third[third > 0]) & set(first[first > 0])


def test_genres_are_marked_once_each(transformed):
    np.testing.assert_array_equal(transformed["genres_xf"].sum(axis=1), [2, 1, 1])
    assert ((transformed["genres_xf"][0] - transformed["genres_xf"][1]) >= 0).all()


def test_numbers_are_standardised_over_the_rows_that_have_them(transformed):
    np.testing.assert_allclose(transformed["timestamp_normalized_xf"], [-1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(transformed["age_normalized_xf"], [-1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(transformed["rating_xf"], [4, 2, 0])


def test_standardised_numbers_do_not_depend_on_the_order_of_beams_sums():
    times = 978_300_760.0 + np.random.default_rng(0).integers(0, 90_000_000, 200_000)
    mean, variance = times.mean(), times.var()
    scores = standardized(tf.constant(times), mean, variance)
    np.testing.assert_allclose(scores, (times - mean) / times.std(), atol=1e-6)
    # The relative rounding error of a sum of about a million numbers.
    for error in (1 - 2e-13, 1 + 2e-13):
        other = standardized(tf.constant(times), mean * error, variance * error)
        np.testing.assert_array_equal(tf.cast(other, tf.float32), tf.cast(scores, tf.float32))


def test_a_constant_is_standardised_to_zero():
    np.testing.assert_array_equal(standardized(tf.constant([3.0, 3.0], tf.float64), 3.0, 0.0), [0, 0])


def test_all_ages_fall_into_brackets_even_if_they_are_no_code(graph):
    rows = [{"age": [age]} for age in (1, 17, 18, 24, 30, 56, 99)]
    transformed = apply(graph, rows)
    np.testing.assert_array_equal(transformed["age_xf"], [1, 1, 2, 2, 3, 7, 7])
    # The number tells no more than the bracket, since that is all that data say of anybody.
    numbers = transformed["age_normalized_xf"]
    codes = [numbers[place] for place in (0, 0, 2, 2, 4, 5, 5)]
    np.testing.assert_array_equal(numbers, codes)
    assert len(set(codes)) == 4


def test_times_have_an_hour_and_a_weekday(graph):
    times = ["2000-12-31T22:12:40", "2001-01-01T00:00:00", "1996-02-29T23:59:59"]
    rows = [{"timestamp": [calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))]} for text in times]
    found = apply(graph, rows)
    np.testing.assert_array_equal(found["timestamp_hour_xf"], [23, 1, 24])
    np.testing.assert_array_equal(found["timestamp_weekday_xf"], [7, 1, 4])  # Sunday, Monday, Thursday


def test_frequency_counts_ratings_and_not_rows_of_the_catalogue(tmp_path):
    rows: list[transform_graph.Row] = [
        *ROWS,
        {**ROWS[0], "user_id": [3]},
        {"movie_id": [10], "title": ["Toy Story (1995)"]},
    ]
    found = apply(transform_graph.analyze(rows, tmp_path, LENGTH), [*ROWS, {"movie_id": [999]}, {}])
    np.testing.assert_array_equal(found["movie_id_frequency_xf"], [2, 1, 0, 0, 0])


def test_the_largest_id_is_counted_like_any_other(tmp_path):
    largest = {**ROWS[0], "movie_id": [2**63 - 1]}
    rows: list[transform_graph.Row] = [*ROWS, largest, {**largest, "user_id": [3]}, {**largest, "user_id": [4]}]
    found = apply(transform_graph.analyze(rows, tmp_path, LENGTH), [largest, ROWS[0], {"movie_id": [2**63 - 2]}])
    np.testing.assert_array_equal(found["movie_id_frequency_xf"], [3, 1, 0])


def test_a_history_may_come_without_its_ratings_or_with_fewer(graph):
    movies = apply(graph, ROWS)["movie_id_xf"]
    history = {"history_movie_ids": [10, 20, 30]}
    found = apply(graph, [history, {**history, "history_ratings": [4.0]}])
    np.testing.assert_array_equal(found["history_movie_ids_xf"], [[*movies[[2, 1, 0]], 0]] * 2)
    np.testing.assert_array_equal(found["history_ratings_xf"], [[0, 0, 0, 0], [0, 0, 4, 0]])


def test_a_long_history_takes_no_memory_for_the_other_rows(graph):
    long = {"history_movie_ids": [20] * 500_000, "history_ratings": [5.0] * 500_000}
    rows = [ROWS[0] | long] + [ROWS[0]] * 200
    apply(graph, rows[:1])
    Path("/proc/self/clear_refs").write_text("5")  # Sets the peak to what is used now.
    before = memory_megabytes("VmHWM")
    transformed = apply(graph, rows)
    assert transformed["history_ratings_xf"][:2].tolist() == [[5.0] * LENGTH, [3.0, 5.0, 0.0, 0.0]]
    # A dense table of all rows would take 400 MB.
    assert memory_megabytes("VmHWM") - before < 200


def memory_megabytes(field):
    """A size from Linux's description of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def test_a_history_keeps_the_newest_movies(graph):
    movies = apply(graph, ROWS)["movie_id_xf"]
    rows = [{"history_movie_ids": [10, 10, 20, 30, 20], "history_ratings": [1.0, 2.0, 3.0, 4.0, 5.0]}]
    found = apply(graph, rows)
    np.testing.assert_array_equal(found["history_movie_ids_xf"], [movies[[1, 2, 1, 0]]])
    np.testing.assert_array_equal(found["history_ratings_xf"], [[5, 4, 3, 2]])


def test_unknown_words_have_an_index_of_their_own(graph):
    found = apply(graph, [{"user_id": [77], "gender": ["X"], "title": ["Quux"], "genres": ["Noir"]}])
    known = apply(graph, ROWS)
    for name in ("user_id_xf", "gender_xf"):
        assert found[name][0] == known[name].max() + 1
    assert found["title_xf"][0, 0] == known["title_xf"].max() + 1
    assert found["genres_xf"].sum() == 1
    assert np.argmax(found["genres_xf"]) == np.flatnonzero(known["genres_xf"].any(axis=0)).max() + 1


def test_data_without_an_optional_feature_gives_none_of_its_columns(tmp_path):
    rows: list[transform_graph.Row] = [
        {name: values for name, values in row.items() if name != "director"} for row in ROWS
    ]
    graph = transform_graph.analyze(rows, tmp_path, LENGTH, without=("director", "star"))
    every = {column.name for column in columns()}
    assert set(apply(graph, rows)) == every - {"director_xf", "star_xf"}


def test_data_without_a_required_feature_is_refused(tmp_path):
    with pytest.raises(ValueError, match="should have the feature gender"):
        transform_graph.analyze(ROWS, tmp_path, LENGTH, without=("gender",))


def test_seconds_fit_32_bits_at_any_time():
    times = tf.constant([0, 1, 946_684_799, 946_684_800, 946_684_801, 2**62, 2**63 - 1], tf.int64)
    np.testing.assert_array_equal(seconds(times), [0, -946_684_799, -1, 1, 1, 2**31 - 1, 2**31 - 1])
