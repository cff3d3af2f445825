"""The search for hyper-parameters finds the best trial, can be continued, and skips failed trials.

A toy function replaces training.
"""

import importlib
import json
from types import SimpleNamespace

import pytest

from pipeline.local.errors import root_cause
from pipeline.model_settings import ModelsConfig
from tests.trainers.specs import spec_of
from trainers.hyperparameters import DCNHyperparameters
from trainers.loop import training, tuning
from trainers.loop.evaluation import FilteredRecall
from trainers.loop.search_spaces import from_choices
from trainers.loop.training import HYPERPARAMETERS, ModelSpec

RATES, RANKS, WIDTHS = [0.1, 0.2, 0.3, 0.4, 0.5], [None, 8, 16], [[4], [8, 4]]
SPACE = {"learning_rate": RATES, "projection_dim": RANKS, "hidden_units": WIDTHS}


class Toy:
    """Replaces `fit`: records the hyper-parameters and returns an objective that is best at learning rate 0.31."""

    def __init__(self, sign):
        self.sign, self.tried, self.trouble = sign, [], lambda hparams: None

    def __call__(self, model, train, objective, hparams, log_dir, name):
        self.trouble(hparams)
        self.tried.append(hparams)
        return objective.sign * (1 - abs(hparams.learning_rate - 0.31))


@pytest.fixture(params=[1, -1], ids=["larger", "smaller"])
def toy(request, monkeypatch):
    toy = Toy(request.param)
    splits = SimpleNamespace(train={})
    monkeypatch.setattr(tuning, "read_splits", lambda fn_args: splits)
    monkeypatch.setattr(tuning, "fit", toy)
    return toy


@pytest.fixture
def search(toy, tmp_path):
    """A function that runs a search as the Tuner component does, and returns keras-tuner's tuner."""

    def run(trials=8, space=SPACE, seed=0, **settings):
        section = DCNHyperparameters(**({"learning_rate": 0.5, "epochs": 7, "hidden_units": [4]} | settings))
        objective = type("Objective", (), {"name": "toy", "sign": toy.sign, "__init__": lambda self, splits: None})
        spec = ModelSpec("toy", DCNHyperparameters, lambda splits, hparams: None, objective, ())
        fn_args = SimpleNamespace(
            custom_config={
                HYPERPARAMETERS: section.model_dump(mode="json"),
                tuning.SPACE: space,
                tuning.TRIALS: trials,
                tuning.SEED: seed,
                tuning.FOLDER: str(tmp_path),
            },
            transform_graph_path="/graph/1",
        )
        result = tuning.tuner(fn_args, spec)
        result.tuner.search(**result.fit_kwargs)
        return result.tuner

    return run


def best(tuner):
    return from_choices(tuner.get_best_hyperparameters()[0].values)


def value(hparams):
    return 1 - abs(hparams.learning_rate - 0.31)


def test_the_best_trial_is_chosen_in_the_direction_of_the_objective(toy, search):
    tuner = search(trials=12)
    assert tuner.oracle.objective.direction == ("max" if toy.sign > 0 else "min")
    assert len(toy.tried) == 12
    assert best(tuner)["learning_rate"] == max(toy.tried, key=value).learning_rate == 0.3


def test_values_come_from_the_space_and_all_else_from_the_configuration(toy, search):
    search(trials=12)
    for hparams in toy.tried:
        assert hparams.learning_rate in RATES
        assert hparams.projection_dim in RANKS
        assert hparams.hidden_units in WIDTHS
        assert hparams.epochs == 7
    assert len({json.dumps(hparams.model_dump()) for hparams in toy.tried}) == 12


def test_the_first_trial_uses_the_configured_settings(toy, search):
    # All values in the space are worse, so the configured settings win although the space does not contain them.
    tuner = search(trials=4, space={"learning_rate": [0.9, 1.0]}, learning_rate=0.29)
    assert toy.tried[0].learning_rate == best(tuner)["learning_rate"] == 0.29


def test_an_exhausted_space_ends_the_search(toy, search):
    search(trials=50, space={"learning_rate": [0.1, 0.2]})
    assert [hparams.learning_rate for hparams in toy.tried][1:] in ([0.1, 0.2], [0.2, 0.1])


def test_the_same_seed_tries_the_same_values(toy, search, tmp_path):
    search(seed=3)
    first, toy.tried = toy.tried, []
    search(seed=4)
    other, toy.tried = toy.tried, []
    for folder in tmp_path.iterdir():
        folder.rename(folder.with_name(f"{folder.name}-old"))
    search(seed=3)
    assert toy.tried == first != other


def test_trials_whose_loss_is_nan_are_skipped(toy, search):
    def trouble(hparams):
        if hparams.learning_rate in (0.3, 0.5):
            raise FloatingPointError("the loss is nan")

    toy.trouble = trouble
    assert best(search(trials=12))["learning_rate"] in (0.2, 0.4)


def test_a_search_in_which_every_trial_failed_says_where_to_look(toy, search):
    def trouble(hparams):
        raise FloatingPointError("the loss is nan")

    toy.trouble = trouble
    with pytest.raises(FloatingPointError, match=r"every trial failed; other values in tuning\.space\.toy"):
        search(trials=5)


def test_any_other_error_ends_the_search_and_is_reported(toy, search):
    def trouble(hparams):
        raise MemoryError("no room")

    toy.trouble = trouble
    with pytest.raises(Exception, match="toy trial 1/8 failed") as caught:
        search()
    assert root_cause(caught.value) == ("MemoryError", "no room")


def test_an_interrupted_search_continues_where_it_stopped(toy, search, tmp_path):
    search()
    whole, toy.tried = toy.tried, []
    for folder in tmp_path.iterdir():
        folder.rename(folder.with_name("whole"))

    def trouble(hparams):
        if len(toy.tried) == 3:
            raise KeyboardInterrupt

    toy.trouble = trouble
    with pytest.raises(KeyboardInterrupt):
        search()
    toy.trouble = lambda hparams: None
    search()
    assert toy.tried == whole


def test_more_trials_continue_a_search_and_fewer_choose_among_the_first(toy, search):
    search(trials=2)
    more = search(trials=12)
    assert len(toy.tried) == 12
    assert best(more)["learning_rate"] == 0.3
    again = search(trials=2)
    assert len(toy.tried) == 12
    assert best(again)["learning_rate"] == max(toy.tried[:2], key=value).learning_rate


def test_other_settings_start_another_search(toy, search):
    search(trials=2)
    search(trials=2, epochs=8)
    assert [hparams.epochs for hparams in toy.tried] == [7, 7, 8, 8]


def test_a_search_by_many_workers_is_refused(toy, search):
    with pytest.raises(
        ValueError, match=r"models\.toy\.distribution should be none or mirrored .* received multi_worker"
    ):
        search(distribution="multi_worker")
    assert not toy.tried


@pytest.mark.parametrize("record", ["oracle.json", "trial_0/trial.json", "tuner0.json"])
def test_unreadable_records_make_the_search_start_again(toy, search, tmp_path, record):
    search(trials=3)
    (path,) = tmp_path.glob(f"*/{record}")
    path.write_text('{"trial_id": ')
    toy.tried = []
    search(trials=3)
    assert len(toy.tried) == 3


def test_each_trial_records_its_duration(search):
    for trial in search(trials=2).oracle.trials.values():
        assert trial.metrics.get_last_value(tuning.SECONDS) >= 0


def test_the_trainer_uses_the_hyper_parameters_that_the_tuner_found(toy, search, monkeypatch):
    tuner = search(trials=12)
    section = DCNHyperparameters(learning_rate=0.5, epochs=7).model_dump(mode="json")
    found = SimpleNamespace(
        custom_config={HYPERPARAMETERS: section},
        hyperparameters=tuner.get_best_hyperparameters()[0].get_config(),
        model_run_dir="",
        serving_model_dir="",
    )
    splits = SimpleNamespace(train={"x": []}, eval={"x": []})
    monkeypatch.setattr(training, "read_splits", lambda fn_args: splits)
    monkeypatch.setattr(training, "fit", lambda model, *_: trained.append(model))
    monkeypatch.setattr(training, "export", lambda *_: None)
    trained: list[DCNHyperparameters] = []
    spec = ModelSpec("toy", DCNHyperparameters, lambda splits, hparams: hparams, FilteredRecall, ())
    monkeypatch.setattr(FilteredRecall, "__init__", lambda self, splits: None)
    training.run(found, spec)
    assert trained == [DCNHyperparameters(**{**section, **best(tuner)})]
    found.hyperparameters = None
    training.run(found, spec)
    assert trained[1] == DCNHyperparameters(**section)


@pytest.mark.parametrize("name", ModelsConfig.model_fields)
def test_training_and_tuning_a_model_use_the_same_specification(name, monkeypatch):
    module = importlib.import_module(f"trainers.{name}")
    section = getattr(ModelsConfig(), name)
    fn_args = SimpleNamespace(custom_config={HYPERPARAMETERS: section.model_dump()})
    called = []
    monkeypatch.setattr(training, "run", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(tuning, "tuner", lambda *arguments: called.append(arguments))
    module.run_fn(fn_args)
    module.tuner_fn(fn_args)
    spec = spec_of(name, section.model_dump())
    assert called == [(fn_args, spec), (fn_args, spec)]
    assert (spec.name, spec.hyperparameters) == (name, type(section))
    retrieves = name in ("retrieval", "joint")
    assert (spec.objective.name, spec.objective.sign) == (("recall_at_10_filtered", 1) if retrieves else ("rmse", -1))
