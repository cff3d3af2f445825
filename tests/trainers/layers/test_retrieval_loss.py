"""Retrieval losses equal those of plain NumPy, correct for sampling by popularity, and count only positive rows."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tests.trainers.planted_splits import planted_splits, with_history
from trainers import baselines, retrieval
from trainers.datasets import batches
from trainers.export import signatures
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.retrieval_loss import InBatchSoftmax, mean_over_positives
from trainers.loop import training

TEMPERATURE = 0.5
MOVIES = np.array([1, 2, 1, 3, 4, 1], np.int32)
COUNTS = np.array([1, 40, 20, 5, 2], np.float32)


@pytest.fixture(scope="module")
def splits():
    planted = planted_splits(users=200, movies=60, ratings=6000, seed=0)
    return with_history(replace(planted, train=long_tailed(planted.train), eval=long_tailed(planted.eval)), length=4)


def long_tailed(arrays):
    """Drops rows so that a few movies have most of the ratings, as in larger catalogues."""
    movies = arrays["movie_id_xf"]
    kept = np.random.default_rng(0).random(len(movies)) < 5 / (4 + movies)
    return {name: values[kept] for name, values in arrays.items()}


def batch(arrays):
    return {name: tf.constant(values) for name, values in arrays.items()}


def draw_inputs():
    """Draws the query, candidate and bias of each row; rows of the same movie have the same candidate and bias."""
    rng = np.random.default_rng(0)
    queries, table = rng.normal(size=(len(MOVIES), 3)), rng.normal(size=(5, 3))
    biases = rng.normal(size=5)
    return queries.astype(np.float32), table[MOVIES].astype(np.float32), biases[MOVIES].astype(np.float32)


def in_batch_losses(**settings):
    hparams = RetrievalHyperparameters(loss="in_batch", temperature=TEMPERATURE, **settings)
    queries, candidates, biases = draw_inputs()
    task = InBatchSoftmax(hparams, np.log(COUNTS / COUNTS.sum()))
    return task.losses(queries, candidates, biases, MOVIES).numpy()


def expected_losses(hard_negatives=None, accidental_hits=False):
    queries, candidates, biases = (x.astype(np.float64) for x in draw_inputs())
    logits = queries @ candidates.T / TEMPERATURE + biases - np.log(COUNTS / COUNTS.sum())[MOVIES]
    losses = []
    for row, movie in enumerate(MOVIES):
        others = [i for i in range(len(MOVIES)) if i != row and (accidental_hits or MOVIES[i] != movie)]
        negatives = np.sort(logits[row, others])[::-1][:hard_negatives]
        losses.append(np.log(np.exp(logits[row, row]) + np.exp(negatives).sum()) - logits[row, row])
    return np.array(losses)


class TestInBatch:
    def test_losses_follow_the_formula(self):
        np.testing.assert_allclose(in_batch_losses(), expected_losses(), rtol=1e-4)

    def test_accidental_hits_do_not_count_as_negatives(self):
        repeated = np.isin(MOVIES, [1])
        difference = expected_losses(accidental_hits=True) - in_batch_losses()
        assert (difference[repeated] > 1e-3).all()
        np.testing.assert_allclose(difference[~repeated], 0, atol=1e-4)

    @pytest.mark.parametrize("number", [1, 2, 5])
    def test_only_the_hardest_negatives_count(self, number):
        # Each row has five others; up to two of these are accidental hits, which never count as negatives.
        losses = in_batch_losses(hard_negatives=number)
        np.testing.assert_allclose(losses, expected_losses(number), rtol=1e-4)
        assert (losses < in_batch_losses() - 1e-3).any() == (number < 5)

    def test_rare_movies_are_corrected_in_full(self):
        # TFRS's task raises probabilities below 1e-6 to 1e-6, which would correct the movie with 2e-7 too little.
        shares = np.array([0.01, 0.001, 2e-7])
        rows, nothing = np.array([2, 1], np.int32), np.zeros([2, 3], np.float32)
        task = InBatchSoftmax(RetrievalHyperparameters(loss="in_batch"), np.log(shares))
        losses = task.losses(nothing, nothing, np.zeros(2, np.float32), rows)
        np.testing.assert_allclose(losses, np.log1p([2e-7 / 0.001, 0.001 / 2e-7]), rtol=1e-3)


class TestSmallCatalogue:
    def test_it_holds_only_the_movies_of_the_batch(self, splits):
        rows = batch({name: values[:3] for name, values in splits.train.items()})
        model = retrieval.RetrievalModel(splits, RetrievalHyperparameters())
        relabelled, movies = model.catalogue.of_batch(rows, "history_movie_ids_xf")
        ids = movies["movie_id_xf"].numpy()
        for name in ("movie_id_xf", "history_movie_ids_xf"):
            np.testing.assert_array_equal(ids[relabelled[name].numpy()], rows[name].numpy())
        assert ids[0] == 0
        named = np.concatenate([rows[name].numpy().ravel() for name in ("movie_id_xf", "history_movie_ids_xf")])
        assert sorted(ids) == sorted({0, *named.tolist()})
        assert len(ids) < splits.movie_size / 2

    def test_vectors_equal_those_of_the_whole_catalogue(self, splits):
        rows = batch({name: values[:50] for name, values in splits.train.items()})
        encoded = []
        for loss in ("softmax", "in_batch"):
            tf.keras.utils.set_random_seed(0)
            model = retrieval.RetrievalModel(splits, RetrievalHyperparameters(loss=loss))
            encoded.append(model.encode(rows, training=False))
        whole, small = encoded
        np.testing.assert_allclose(small.queries, whole.queries, atol=1e-6)
        np.testing.assert_allclose(small.own_candidates(), whole.own_candidates(), atol=1e-6)


def hyperparameters(**settings):
    small = {"epochs": 4, "learning_rate": 0.02, "batch_size": 64, "embedding_dim": 4, "hidden_units": []}
    return RetrievalHyperparameters(**small | settings)


def trained(splits, tmp_path, correct=True, **settings):
    hparams = hyperparameters(**settings)
    tf.keras.utils.set_random_seed(0)
    model = retrieval.SPEC.build(splits, hparams)
    if not correct:
        model._in_batch = InBatchSoftmax(hparams, np.zeros(splits.movie_size, np.float32))
    recall = training.fit(model, splits.train, retrieval.SPEC.objective(splits), hparams, str(tmp_path), "retrieval")
    return model, recall


def log_loss(model, arrays):
    """The mean cross-entropy over the whole catalogue, computed with NumPy."""
    scores = model.scores(batch(arrays)).numpy().astype(np.float64)
    target_scores = scores[np.arange(len(scores)), arrays["movie_id_xf"]]
    return np.mean(np.logaddexp.reduce(scores, axis=1) - target_scores)


def test_the_exact_softmax_is_the_cross_entropy_over_the_catalogue(splits):
    model = retrieval.RetrievalModel(splits, RetrievalHyperparameters())
    assert float(model.compute_loss(batch(splits.eval))) == pytest.approx(log_loss(model, splits.eval), rel=1e-5)


def test_in_batch_training_learns_the_softmax_over_the_catalogue_only_if_corrected(splits, tmp_path):
    exact, _ = trained(splits, tmp_path)
    corrected, recall = trained(splits, tmp_path, loss="in_batch")
    uncorrected, uncorrected_recall = trained(splits, tmp_path, loss="in_batch", correct=False)
    losses = [log_loss(model, splits.eval) for model in (exact, corrected, uncorrected)]
    assert losses[1] - losses[0] < 0.25 * (losses[2] - losses[0])
    assert losses[2] - losses[0] > 0.1
    assert recall > uncorrected_recall


@pytest.mark.parametrize("settings", [{}, {"loss": "in_batch"}, {"loss": "in_batch", "hard_negatives": 30}])
def test_training_lowers_the_loss_under_every_setting(splits, tmp_path, settings):
    def loss(model):
        return np.mean([model.compute_loss(rows) for rows in batches(splits.train, 64, shuffle_seed=0)])

    tf.keras.utils.set_random_seed(0)
    untrained = retrieval.RetrievalModel(splits, hyperparameters(positives="liked", **settings))
    model, _ = trained(splits, tmp_path, positives="liked", **settings)
    assert loss(model) < loss(untrained)


class TestPositives:
    def test_the_mean_is_over_liked_rows_only(self):
        rows = {"rating_xf": tf.constant([5.0, 3.0, 4.0, 1.0])}
        losses = tf.constant([1.0, 10.0, 2.0, 100.0])
        everywhere = tf.fill([4], True)
        assert float(mean_over_positives(losses, rows, "liked", everywhere)) == 1.5
        assert float(mean_over_positives(losses, rows, "watched", everywhere)) == 28.25

    def test_rows_of_movies_that_are_no_candidates_do_not_count(self):
        rows = {"rating_xf": tf.constant([5.0, 3.0, 4.0, 1.0])}
        losses = tf.constant([1.0, 10.0, 2.0, 100.0])
        found = tf.constant([True, True, False, False])
        assert float(mean_over_positives(losses, rows, "liked", found)) == 1.0
        assert float(mean_over_positives(losses, rows, "watched", found)) == 5.5
        assert float(mean_over_positives(losses, rows, "watched", tf.fill([4], False))) == 0

    def test_without_liked_rows_the_loss_is_zero(self):
        rows = {"rating_xf": tf.constant([3.0, 1.0])}
        assert float(mean_over_positives(tf.constant([1.0, 2.0]), rows, "liked", tf.fill([2], True))) == 0

    def test_a_split_without_liked_rows_is_an_error(self, splits):
        disliked = splits.train | {"rating_xf": np.ones_like(splits.train["rating_xf"])}
        with pytest.raises(ValueError, match="'train' should have ratings of 4 stars or more"):
            retrieval.SPEC.build(replace(splits, train=disliked), RetrievalHyperparameters(positives="liked"))

    @pytest.mark.parametrize("loss", ["softmax", "in_batch"])
    def test_rows_that_are_not_liked_do_not_change_the_loss(self, splits, loss):
        tf.keras.utils.set_random_seed(0)
        model = retrieval.RetrievalModel(splits, RetrievalHyperparameters(loss=loss, positives="liked"))
        before = float(model.compute_loss(batch(splits.train)))
        liked = splits.train["rating_xf"] >= 4
        users = np.where(liked, splits.train["user_id_xf"], 1 + splits.train["user_id_xf"] % 7)
        assert (users != splits.train["user_id_xf"]).any()
        after = float(model.compute_loss(batch(splits.train | {"user_id_xf": users.astype(np.int32)})))
        assert after == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hard_negatives": 5}, "hard_negatives should be null, or loss in_batch; received 5 with softmax"),
        ({"loss": "in_batch", "batch_size": 1}, "batch_size should be greater than hard_negatives, and than 1"),
        ({"loss": "in_batch", "hard_negatives": 64, "batch_size": 64}, "received 64 with hard_negatives 64"),
        ({"loss": "sampled"}, "'softmax' or 'in_batch'"),
        ({"positives": "loved"}, "'watched' or 'liked'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        RetrievalHyperparameters(**settings)


def test_biases_start_as_popularity_and_are_learnt(splits, tmp_path):
    model, _ = trained(splits, tmp_path, loss="in_batch", epochs=1)
    moved = model._movie_bias.numpy() - baselines.log_popularity(splits)
    assert 1e-3 < np.abs(moved[1:-1]).max() < 1


@pytest.mark.parametrize("loss", ["softmax", "in_batch"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_movie_that_left_the_catalogue_is_in_histories_but_is_no_candidate(splits, loss, dropout):
    gone = int(np.bincount(splits.train["movie_id_xf"]).argmax())
    stays = splits.movies["movie_id_xf"] != gone
    smaller = replace(splits, movies={name: values[stays] for name, values in splits.movies.items()})
    tf.keras.utils.set_random_seed(0)
    hparams = RetrievalHyperparameters(loss=loss, dropout=dropout, embedding_dim=8)
    model = retrieval.RetrievalModel(smaller, hparams)
    rows = batch(smaller.train)
    assert (rows["movie_id_xf"].numpy() == gone).any()
    with tf.GradientTape() as tape:
        value = model.compute_loss(rows, training=True)
    assert np.isfinite(float(value))
    gradients = tape.gradient(value, model.trainable_variables)
    assert all(np.isfinite(tf.convert_to_tensor(each)).all() for each in gradients if each is not None)

    # Its features are those that its ratings have, so that histories with it say what they said before.
    whole = retrieval.RetrievalModel(splits, hparams)
    for name in whole.catalogue.features.keys() & splits.train.keys():
        table = whole.catalogue.features[name]
        np.testing.assert_array_equal(model.catalogue.features[name], table)
    candidates = whole.catalogue.candidates.numpy()
    assert candidates[gone]
    candidates[gone] = False
    np.testing.assert_array_equal(model.catalogue.candidates, candidates)
    assert np.isneginf(model.scores(rows).numpy()[:, gone]).all()

    # Whatever the rows of the movie say, the loss is that of the others.
    others = {name: tf.boolean_mask(values, rows["movie_id_xf"] != gone) for name, values in rows.items()}
    assert float(model.compute_loss(rows)) == pytest.approx(float(model.compute_loss(others)), rel=1e-5)

    # Nor is it in the lists by popularity that the model is compared with, or at the end of its own.
    head = signatures.RetrievalHead(model, smaller)
    assert np.isneginf(head.popularity.numpy()[gone])
    assert np.isneginf(head.popularity_by_group.numpy()[..., gone]).all()
    served = head.serve(rows)
    assert served["movie_id"].shape[1] == candidates.sum()
    assert np.isfinite(served["score"].numpy()).all()
