"""Batches and seen movies."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from trainers.datasets import SeenMovies, batches, predictor, read_rows, replica_batches
from trainers.loop.evaluation import FilteredRecall, LogLoss, RootMeanSquaredError

ARRAYS = {"x": np.arange(5)}


def test_every_row_comes_once_in_an_epoch_and_in_another_order_in_the_next():
    arrays = {"x": np.arange(1000), "y": np.arange(1000) * 2.0}
    dataset = batches(arrays, 64, shuffle_seed=1)
    epochs = [list(dataset.as_numpy_iterator()) for _ in range(2)]
    orders = [np.concatenate([batch["x"] for batch in epoch]) for epoch in epochs]
    for epoch, order in zip(epochs, orders, strict=True):
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
        np.testing.assert_array_equal(np.concatenate([batch["y"] for batch in epoch]), order * 2.0)
    assert (orders[0] != orders[1]).any()


def test_an_order_is_uniform_and_neighbours_in_it_have_nothing_to_do_with_each_other():
    """Over many epochs each row is anywhere equally often; in one, what stands side by side is independent."""
    rows = 2000
    dataset = batches({"x": np.arange(rows)}, 256, shuffle_seed=5)
    orders = np.stack([np.concatenate([batch["x"] for batch in dataset.as_numpy_iterator()]) for _ in range(30)])
    # Means of 30 uniform numbers stray from the middle by 2000 / sqrt(12 * 30) = 105, the largest by 4 times that.
    assert np.abs(orders.mean(axis=0) - (rows - 1) / 2).max() < 6 * 105
    assert np.abs(np.argsort(orders, axis=1).mean(axis=0) - (rows - 1) / 2).max() < 6 * 105
    for order in orders[:5]:
        # A correlation of independent numbers strays by 1 / sqrt(2000) = .022.
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.11
        assert np.unique(np.diff(order), return_counts=True)[1].max() < 20
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_the_same_seed_gives_the_same_orders_and_another_seed_gives_others():
    def epochs(seed):
        dataset = batches({"x": np.arange(500)}, 64, shuffle_seed=seed)
        return [np.concatenate([batch["x"] for batch in dataset.as_numpy_iterator()]) for _ in range(3)]

    first, again, other = epochs(3), epochs(3), epochs(4)
    np.testing.assert_array_equal(first, again)
    assert all((one != two).any() for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize(("rows", "batch_size", "sizes"), [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (3, 8, [3]), (1, 1, [1])])
@pytest.mark.parametrize("seed", [None, 0])
def test_batches_are_full_but_for_the_last(rows, batch_size, sizes, seed):
    dataset = batches({"x": np.arange(rows)}, batch_size, seed)
    assert [len(batch["x"]) for batch in dataset.as_numpy_iterator()] == sizes
    if seed is None:
        np.testing.assert_array_equal(np.concatenate([b["x"] for b in dataset.as_numpy_iterator()]), np.arange(rows))


def test_no_rows_to_predict_are_named():
    predict = predictor(lambda features: features["x"])
    np.testing.assert_array_equal(predict({"x": np.arange(3.0)}), [0, 1, 2])
    with pytest.raises(ValueError, match="at least one row to predict; received 0 rows of x"):
        predict({"x": np.arange(0.0)})


def test_files_without_rows_are_named(tmp_path):
    empty = str(tmp_path / "Split-eval-00000.gz")
    tf.io.TFRecordWriter(empty, "GZIP").close()
    transform = SimpleNamespace(transformed_feature_spec=lambda: {"x": tf.io.FixedLenFeature([], tf.int64)})
    for files in ([empty], []):
        with pytest.raises(ValueError, match=r"at least one transformed row; received none in \[") as caught:
            read_rows(files, transform)  # type: ignore[arg-type]
        assert all(file in str(caught.value) for file in files)


def written(path, rows):
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for row in rows:
            features = {
                name: tf.train.Feature(int64_list=tf.train.Int64List(value=np.atleast_1d(value)))
                for name, value in row.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return str(path)


@pytest.mark.parametrize("people", [20, 0])
def test_rows_are_the_same_in_whatever_order_and_files_they_were_written(tmp_path, people):
    """Half of the rows are of people without an index, all 1, with the same places. A catalogue has no people."""
    random = np.random.default_rng(0)
    rows = [
        {"movie_id_xf": movie, "history_movie_ids_xf": random.integers(9, size=3)}
        | ({"user_id_xf": max(1, number % people - 10), "place_xf": number // people} if people else {})
        for number, movie in enumerate(random.permutation(400))
    ]
    spec = {name: tf.io.FixedLenFeature(np.shape(value), tf.int64) for name, value in rows[0].items()}
    transform = SimpleNamespace(transformed_feature_spec=lambda: spec)
    whole = read_rows([written(tmp_path / "whole.gz", rows)], transform)  # type: ignore[arg-type]
    shuffled = [rows[number] for number in random.permutation(len(rows))]
    parts = [written(tmp_path / f"{first}.gz", shuffled[first : first + 90]) for first in range(0, 400, 90)]
    again = read_rows(parts, transform)  # type: ignore[arg-type]
    for name, values in whole.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)
    by_movie = {row["movie_id_xf"]: row for row in rows}
    for number, movie in enumerate(whole["movie_id_xf"]):
        for name, value in by_movie[movie].items():
            np.testing.assert_array_equal(whole[name][number], value, err_msg=name)
    if people:
        keys = list(zip(whole["user_id_xf"], whole["place_xf"], strict=True))
        assert keys == sorted(keys)


@pytest.mark.parametrize("objective", [FilteredRecall, RootMeanSquaredError, LogLoss])
def test_an_eval_split_without_rows_is_named(objective):
    splits = SimpleNamespace(eval={"rating_xf": np.zeros(0, np.float32)})
    with pytest.raises(ValueError, match="The split 'eval' should have at least one row"):
        objective(splits)


class Guess(tf.Module):
    """A model that says the same of every row, and counts how often it is traced."""

    def __init__(self, value):
        super().__init__()
        self.value, self.traced = tf.Variable(value), 0

    def ratings(self, features):
        self.traced += 1
        return self.value + 0.0 * features["rating_xf"]

    like_logits = ratings

    def scores(self, features):
        self.traced += 1
        return tf.tile(tf.one_hot([1], 20) * self.value, [tf.shape(features["rating_xf"])[0], 1])


@pytest.mark.parametrize(
    ("objective", "first", "second", "values"),
    [
        (FilteredRecall, 1.0, -1.0, (1.0, 0.0)),
        (RootMeanSquaredError, 3.0, 4.5, (1.0, 0.5)),
        (LogLoss, 0.0, 2.0, (np.log(2), np.logaddexp(0, -2))),
    ],
)
def test_a_model_is_traced_once_and_measured_with_its_weights_of_the_moment(objective, first, second, values):
    one = np.ones(1, np.int32)
    rows = {"rating_xf": np.array([4.0], np.float32), "user_id_xf": one, "movie_id_xf": one}
    train = {"user_id_xf": 2 * one, "movie_id_xf": one}
    measure = objective(SimpleNamespace(eval=rows, train=train, size=lambda name: 3))
    for _ in range(2):
        model = Guess(first)
        assert measure(model) == pytest.approx(values[0])
        traced = model.traced
        model.value.assign(second)
        assert measure(model) == pytest.approx(values[1])
        assert model.traced == traced > 0


def test_seen_movies_are_those_of_the_user():
    rng = np.random.default_rng(0)
    users, movies = rng.integers(1, 9, 200), rng.integers(1, 50, 200)
    seen = SeenMovies.of({"user_id_xf": users, "movie_id_xf": movies}, user_size=10)
    asked = np.array([3, 9, 3, 5])  # 9 has rated nothing
    pairs = seen.pairs(asked)
    for row, user in enumerate(asked):
        assert sorted(pairs[pairs[:, 0] == row, 1]) == sorted(movies[users == user])


@pytest.mark.parametrize(
    "dataset", [batches(ARRAYS, 2), batches(ARRAYS, 2, 0), replica_batches(ARRAYS, 2, 0, range(2), 2)]
)
def test_no_dataset_waits_for_a_thread_that_tunes_it(dataset):
    assert dataset.options().autotune.enabled is False
