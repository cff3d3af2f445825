"""A warm start copies the weights of an earlier export, and moves each row of a table to the new index of its key."""

import dataclasses
import logging
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.trainers.planted_splits import PlantedTransform, planted_splits, with_history
from tests.trainers.specs import no_dropout, spec_of
from trainers.export.signatures import export
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.weights import named_weights
from trainers.loop import training
from trainers.loop.warm_start import rows_by_key, start_from

SPEC = spec_of("retrieval", {})
USERS, MOVIES = 40, 30


@pytest.fixture(scope="module")
def splits():
    return with_history(planted_splits(USERS, MOVIES, ratings=600, seed=0))


class TrainLoss:
    """An objective that falls in every epoch: the loss of the first train rows."""

    name = "train_loss"
    sign = -1

    def __init__(self, splits):
        self._rows = first_rows(splits)

    def __call__(self, model):
        return float(model.compute_loss(self._rows))


def build(splits, seed, spec=SPEC, **settings):
    tf.keras.utils.set_random_seed(seed)
    model = spec.build(splits, spec.hyperparameters(embedding_dim=8, **settings))
    model.compute_loss(first_rows(splits))
    return model


def first_rows(splits):
    return {name: values[:200] for name, values in splits.train.items()}


@pytest.fixture(scope="module")
def base(splits, tmp_path_factory):
    """The weights of a trained retrieval model, and the folder that it was exported to."""
    folder = tmp_path_factory.mktemp("base")
    # Nobody is hidden, so that a few epochs are enough to remember who rated what.
    model = build(splits, seed=1, **no_dropout(RetrievalHyperparameters))
    hparams = SPEC.hyperparameters(embedding_dim=8, epochs=8, batch_size=64, learning_rate=0.02)
    training.fit(model, splits.train, TrainLoss(splits), hparams, str(folder / "logs"), "retrieval")
    export(model, splits, str(folder / "model"), SPEC.heads)
    return {name: weight.numpy() for name, weight in named_weights(model).items()}, str(folder / "model")


def log_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "trainers"]


@pytest.fixture
def info_log(caplog):
    caplog.set_level(logging.INFO, logger="trainers")
    return caplog


def test_with_the_same_vocabularies_all_weights_are_taken(splits, base, info_log):
    weights, folder = base
    model = build(splits, seed=2)
    cold = float(model.compute_loss(first_rows(splits)))
    start_from(folder, model, splits, "retrieval")
    assert float(model.compute_loss(first_rows(splits))) < 0.8 * cold
    for name, weight in named_weights(model).items():
        np.testing.assert_array_equal(weight.numpy(), weights[name], err_msg=name)
    assert log_of(info_log) == [
        f"retrieval: starts from {folder}: "
        f"{len(weights)} weights taken, 0 with rows matched by key, 0 left as initialised"
    ]


def with_other_vocabularies(splits):
    """The splits with a new movie before the other movies, which are in reverse order, and without user 7."""
    keys = {name.removesuffix("_vocabulary"): [key.decode() for key in words] for name, words in vocabularies(splits)}
    keys["movie_id"] = ["999", *keys["movie_id"][::-1]]
    keys["user_id"].remove("7")
    return dataclasses.replace(splits, transform=cast(tft.TFTransformOutput, PlantedTransform(keys)))


def vocabularies(splits):
    return splits.transform.keys.items()


def test_rows_follow_their_keys_and_new_rows_stay_as_initialised(splits, base, info_log):
    weights, folder = base
    changed_splits = with_other_vocabularies(splits)
    model = build(changed_splits, seed=2)
    before = {name: weight.numpy() for name, weight in named_weights(model).items()}
    start_from(folder, model, changed_splits, "retrieval")
    after = {name: weight.numpy() for name, weight in named_weights(model).items()}
    for name in ("candidate_model._tables.movie_id_xf.embeddings", "_movie_bias"):
        # The rows are those of padding, the new movie, the old movies in reverse order, and unknown movies.
        np.testing.assert_array_equal(after[name][0], weights[name][0])
        np.testing.assert_array_equal(after[name][1], before[name][1])
        np.testing.assert_array_equal(after[name][2:-1], weights[name][-2:0:-1])
        np.testing.assert_array_equal(after[name][-1], weights[name][-1])
    users = "query_model._ids.embeddings"
    np.testing.assert_array_equal(after[users], np.delete(weights[users], 7, axis=0))
    assert "3 with rows matched by key, 0 left as initialised" in log_of(info_log)[0]


def test_weights_of_another_shape_stay_as_initialised(splits, base, info_log):
    weights, folder = base
    model = build(splits, seed=2, hidden_units=[16])
    before = {name: weight.numpy() for name, weight in named_weights(model).items()}
    start_from(folder, model, splits, "retrieval")
    others = {"query_model._mlp._layers.0.kernel", "query_model._mlp._layers.0.bias", "query_model._output.kernel"}
    for name, weight in named_weights(model).items():
        np.testing.assert_array_equal(weight.numpy(), (before if name in others else weights)[name], err_msg=name)
    assert "3 left as initialised" in log_of(info_log)[0]


def test_without_a_model_it_starts_from_scratch(splits, info_log):
    model = build(splits, seed=2)
    before = model.get_weights()
    start_from(None, model, splits, "retrieval")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert log_of(info_log) == ["retrieval: there is no model to start from; it starts from scratch."]


@pytest.mark.parametrize("kind", ["another model", "an export without names", "no model"])
def test_an_export_that_does_not_match_the_model_is_refused(splits, base, tmp_path, kind):
    folder, spec = base[1], spec_of("dcn", {})
    model = build(splits, seed=2, spec=spec)
    if kind != "another model":
        folder = str(tmp_path)
    if kind == "an export without names":
        module = tf.Module()
        module.model_variables = list(model.variables)
        tf.saved_model.save(module, folder)
    with pytest.raises(ValueError, match="the model to start from should be an earlier export of this model") as caught:
        start_from(folder, model, splits, "dcn")
    assert f"received {folder}" in str(caught.value)
    assert "models.dcn.warm_start=false" in str(caught.value)


@pytest.mark.parametrize("warm_start", [True, False])
def test_the_trainer_starts_from_the_base_model_only_with_warm_start(splits, base, monkeypatch, tmp_path, warm_start):
    starts: list[float] = []

    def fit(model, train, *_):
        starts.append(float(model.compute_loss({name: values[:200] for name, values in train.items()})))

    monkeypatch.setattr(training, "read_splits", lambda fn_args: splits)
    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(training, "export", lambda *_: None)
    section = SPEC.hyperparameters(embedding_dim=8, warm_start=warm_start).model_dump(mode="json")
    fn_args = SimpleNamespace(
        custom_config={training.HYPERPARAMETERS: section},
        hyperparameters=None,
        base_model=base[1],
        model_run_dir=str(tmp_path),
        serving_model_dir=str(tmp_path),
    )
    training.run(fn_args, SPEC)
    cold = float(build(splits, seed=2).compute_loss(first_rows(splits)))
    assert (starts[0] < 0.8 * cold) == warm_start


def test_rows_by_key_copies_rows_of_keys_in_both_vocabularies():
    old, new = [b"a", b"b", b"c"], [b"c", b"x", b"a"]
    value = np.arange(5.0)
    np.testing.assert_array_equal(rows_by_key(value, old, new, start=np.full(7, -1.0)), [0, 3, -1, 1, 4, -1, -1])
