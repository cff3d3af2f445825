"""The Transform graph on a few rows whose features can be told by hand."""

from typing import Any

import numpy as np
import pytest

from transform.features import FEATURES, Kind, transformed_names

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
def transformed(tmp_path_factory):
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    from transform.preprocessing import preprocessing_fn

    spec = {feature.name: tf.io.VarLenFeature(tf.as_dtype(feature.dtype)) for feature in FEATURES}
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    rows = [{name: row.get(name, []) for name in spec} for row in ROWS]
    output = str(tmp_path_factory.mktemp("transform"))
    options = PipelineOptions(["--runner=FnApiRunner", "--direct_running_mode=in_memory"])
    with beam.Pipeline(options=options) as pipeline, tft_beam.Context(temp_dir=f"{output}/temporary"):
        analyzed = (pipeline | beam.Create(rows), metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"history_length": LENGTH})
        )
        analyzed | tft_beam.WriteTransformFn(f"{output}/graph")
    graph = tft.TFTransformOutput(f"{output}/graph")
    sparse = {
        name: tf.RaggedTensor.from_row_lengths(
            tf.constant([value for row in rows for value in row[name]], spec[name].dtype),
            [len(row[name]) for row in rows],
        ).to_sparse()
        for name in spec
    }
    return {name: value.numpy() for name, value in graph.transform_features_layer()(sparse).items()}


def test_every_feature_but_those_for_evaluation_is_there(transformed):
    assert set(transformed) == set(transformed_names(*{feature.role for feature in FEATURES}))
    assert all(len(values) == len(ROWS) for values in transformed.values())


def test_missing_categories_are_zero_and_others_are_not(transformed):
    for feature in FEATURES:
        if feature.kind is Kind.CATEGORY:
            present = [feature.name in row for row in ROWS]
            np.testing.assert_array_equal(transformed[f"{feature.name}_xf"] > 0, present)


def test_equal_values_share_an_index(transformed):
    occupation, zip_code = transformed["occupation_xf"], transformed["zip_code_xf"]
    assert occupation[0] == occupation[1]
    assert zip_code[0] == zip_code[1]  # the first three digits count
    assert len(set(transformed["movie_id_xf"])) == 3


def test_histories_are_newest_first_without_unknown_movies(transformed):
    movie = transformed["movie_id_xf"]
    np.testing.assert_array_equal(transformed["history_movie_ids_xf"][0], [movie[2], movie[1], 0, 0])
    np.testing.assert_array_equal(transformed["history_ratings_xf"][0], [3, 5, 0, 0])
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


def test_numbers_are_scores_of_the_rows_that_have_them(transformed):
    np.testing.assert_allclose(transformed["timestamp_xf"], [-1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(transformed["age_normalized_xf"], [-1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(transformed["rating_xf"], [4, 2, 0])
