"""The measured methods: each chooses its settings on the eval split, and is measured on the test split."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import sparse

from benchmarks import baselines
from benchmarks.dataset import Dataset, Ratings
from benchmarks.metrics import Values, means, rating_values, top_k_metrics, top_k_values
from pipeline.model_settings import ModelsConfig

if TYPE_CHECKING:
    from benchmarks.transformed import Transformed

GROUP_PRIORS = (500.0, 2000.0, 8000.0)
EASE_PENALTIES = (500.0, 1000.0, 2000.0)
IALS_RANKS, IALS_WEIGHTS, IALS_PENALTIES = (32, 64, 128), (3.0, 5.0), (30.0, 60.0)
BIAS_PENALTIES = (1.0, 2.0, 5.0, 10.0)
FACTOR_SETTINGS = ((8, 8.0), (8, 12.0), (16, 16.0))

Setting = TypeVar("Setting")
Model = TypeVar("Model")


@dataclass(frozen=True)
class Case:
    """Data, settings and seed of a measurement.

    Attributes:
      data: the ratings as index arrays.
      load_transformed: returns the same ratings as the pipeline's models read them; the first call takes minutes.
      models: hyper-parameters of the pipeline's models.
      seed: seed of everything random in a method.
    """

    data: Dataset
    load_transformed: Callable[[], "Transformed"]
    models: ModelsConfig
    seed: int


@dataclass(frozen=True)
class Result:
    """Metrics of a method on the test split.

    Attributes:
      values: metrics of each test rating, by name.
      users: int64 [test ratings], the user_id of each test rating.
      settings: settings that were chosen on the eval split.
    """

    values: Values
    users: np.ndarray
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
      title: name of the method in the table.
      measure: measures the method on a case.
      model: name of the pipeline's model whose hyper-parameters the method uses; None if it uses none.
    """

    title: str
    measure: Callable[[Case], Result]
    model: str | None = None


def _result(case: Case, values: Values, **settings: float) -> Result:
    return Result(values, case.data.user_ids[case.data.test.users], settings)


def _measure_popularity(split: str) -> Callable[[Case], Result]:
    """Returns the `measure` of a method that ranks by the number of ratings in a split."""

    def measure(case: Case) -> Result:
        data = case.data
        counts = baselines.popularity(getattr(data, split), data.n_movies)
        scores = np.broadcast_to(counts, (data.n_users, data.n_movies))
        return _result(case, top_k_values(scores, data.test))

    return measure


def _measure_group_popularity(case: Case) -> Result:
    data = case.data
    prior, scores = _choose_setting(
        GROUP_PRIORS,
        lambda prior: baselines.group_popularity(data.train, data.groups, data.n_movies, prior),
        lambda scores: -top_k_metrics(scores, data.eval)["recall_at_10_filtered"],
    )
    return _result(case, top_k_values(scores, data.test), prior=prior)


def _measure_group_popularity_in_hindsight(case: Case) -> Result:
    data = case.data
    return _result(
        case, top_k_values(baselines.group_popularity(data.test, data.groups, data.n_movies, 1.0), data.test)
    )


def _measure_biases(case: Case) -> Result:
    data = case.data
    penalty, model = _choose_setting(
        BIAS_PENALTIES,
        lambda penalty: baselines.fit_biases(data.train, data.n_users, data.n_movies, penalty),
        lambda model: _eval_rmse(model, data),
    )
    return _result(case, _rating_errors(model, data.test), penalty=penalty)


def _measure_ease(case: Case) -> Result:
    data = case.data
    seen, known = data.matrix(data.train), data.matrix(data.known)
    penalty, weights = _choose_setting(
        EASE_PENALTIES,
        lambda penalty: baselines.ease(seen, penalty),
        lambda weights: -top_k_metrics(_linear_scores(seen, weights), data.eval)["recall_at_10_filtered"],
    )
    return _result(case, top_k_values(_linear_scores(known, weights), data.test), penalty=penalty)


def _linear_scores(seen: sparse.csr_array, weights: np.ndarray) -> np.ndarray:
    return seen.astype(np.float32) @ weights


def _measure_ials(case: Case) -> Result:
    data = case.data
    seen = data.matrix(data.train)
    (rank, weight, penalty), scores = _choose_setting(
        itertools.product(IALS_RANKS, IALS_WEIGHTS, IALS_PENALTIES),
        lambda setting: baselines.ials(seen, *setting, seed=case.seed),
        lambda scores: -top_k_metrics(scores, data.eval)["recall_at_10_filtered"],
    )
    return _result(case, top_k_values(scores, data.test), rank=rank, weight=weight, penalty=penalty)


def _measure_factors(case: Case) -> Result:
    data = case.data
    (rank, penalty), model = _choose_setting(
        FACTOR_SETTINGS,
        lambda setting: baselines.fit_factors(data.train, data.n_users, data.n_movies, *setting, seed=case.seed),
        lambda model: _eval_rmse(model, data),
    )
    return _result(case, _rating_errors(model, data.test), rank=rank, penalty=penalty)


def _choose_setting(
    settings: Iterable[Setting], fit: Callable[[Setting], Model], loss: Callable[[Model], float]
) -> tuple[Setting, Model]:
    """Fits a model with each setting, and returns the setting and the model with the lowest loss."""
    # A generator, so that not all models are in memory at once: a model may be a matrix of all scores.
    fitted = ((setting, fit(setting)) for setting in settings)
    return min(fitted, key=lambda pair: loss(pair[1]))


def _rating_errors(model: baselines.FactorModel, ratings: Ratings) -> Values:
    return rating_values(model.predict(ratings.users, ratings.movies), ratings.stars)


def _eval_rmse(model: baselines.FactorModel, data: Dataset) -> float:
    return means(_rating_errors(model, data.eval))["rmse"]


def _measure_notebook(name: str) -> Callable[[Case], Result]:
    """Returns the `measure` of a notebook, given the name of its constant in `benchmarks.notebooks`."""

    def measure(case: Case) -> Result:
        # Imported here, because the simple methods need no TensorFlow.
        from benchmarks import notebooks

        data = case.data
        notebook: notebooks.Notebook = getattr(notebooks, name)
        model = notebooks.train_notebook(notebook, data.train, data.n_users, data.n_movies, case.seed)
        values: Values = {}
        if notebook.retrieval_weight:
            scores = model.scores(data.n_users, data.n_movies)
            values |= top_k_values(scores, data.test)
        if notebook.rating_weight:
            values |= rating_values(model.stars(data.test), data.test.stars)
        return _result(case, values)

    return measure


def _pipeline_method(title: str, model: str, **changes: Any) -> Method:
    """A model of the pipeline; `changes` replace some of its hyper-parameters."""

    def measure(case: Case) -> Result:
        from benchmarks import models
        from trainers.registry import MODELS

        ready = case.load_transformed()
        of_preset = case.models[model]
        hparams = type(of_preset).model_validate({**of_preset.model_dump(), "seed": case.seed, **changes})
        trained = models.train(MODELS[model].spec(hparams), hparams, ready.splits)
        return Result(models.measure(trained.model, ready), ready.test_users, {"eval": trained.value})

    return Method(title, measure, model)


METHODS = {
    "popularity": Method("popularity", _measure_popularity("train")),
    # Roughly the best list that is the same for everybody: the most popular movies of the test split, which no real
    # method can know.
    "popularity-hindsight": Method("popularity in hindsight, among the test ratings", _measure_popularity("test")),
    "groups": Method("popularity by gender and age", _measure_group_popularity),
    "groups-hindsight": Method(
        "popularity by gender and age in hindsight, among the test ratings", _measure_group_popularity_in_hindsight
    ),
    "bias": Method("user + movie bias", _measure_biases),
    "ease": Method("EASE", _measure_ease),
    "ials": Method("iALS", _measure_ials),
    "mf": Method("biased matrix factorisation", _measure_factors),
    "notebook-two-tower": Method("notebooks' two-tower, re-run", _measure_notebook("TWO_TOWER")),
    "notebook-ranking": Method("notebooks' ranking, re-run", _measure_notebook("RANKING")),
    "notebook-ranking-tuned": Method("notebooks' ranking, tuned, re-run", _measure_notebook("RANKING_TUNED")),
    "notebook-joint": Method("notebooks' joint, re-run", _measure_notebook("JOINT")),
    "retrieval": _pipeline_method("**retrieval**", "retrieval"),
    "ranking": _pipeline_method("**ranking**", "ranking"),
    "dcn": _pipeline_method("**dcn**", "dcn"),
    "dnn": _pipeline_method(
        "DNN with as many weights as dcn",
        "dcn",
        structure="deep",
        projection_dim=None,
        factor_dim=0,
        second_structure=None,
    ),
    "joint": _pipeline_method("**joint**", "joint"),
    "joint-apart": _pipeline_method(
        "joint, its two parts sharing nothing", "joint", shared=False, shared_state=False, state_gradient=0.0
    ),
}
