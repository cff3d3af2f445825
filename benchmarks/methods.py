"""The measured rows: how each method picks its settings on eval and what it scores on test."""

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
    """What is measured on.

    Attributes:
      data: the ratings as index arrays.
      transformed: the same as the pipeline's models read them; takes minutes when it is called first.
      models: the models' hyper-parameters.
      seed: of whatever is random.
    """

    data: Dataset
    transformed: Callable[[], "Transformed"]
    models: ModelsConfig
    seed: int


@dataclass(frozen=True)
class Result:
    """What a method scores.

    Attributes:
      values: metrics of each test rating, by name.
      users: int64 [test ratings], whose they are, as the files have them.
      settings: what was chosen on the eval split.
    """

    values: Values
    users: np.ndarray
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
      title: its name there.
      measure: takes a case.
      model: whose hyper-parameters it has; None for those of none.
    """

    title: str
    measure: Callable[[Case], Result]
    model: str | None = None


def _result(case: Case, values: Values, **settings: float) -> Result:
    return Result(values, case.data.user_ids[case.data.test.users], settings)


def _popularity(split: str) -> Callable[[Case], Result]:
    def measure(case: Case) -> Result:
        data = case.data
        counts = baselines.popularity(getattr(data, split), data.n_movies)
        scores = np.broadcast_to(counts, (data.n_users, data.n_movies))
        return _result(case, top_k_values(scores, data.test))

    return measure


def _group_popularity(case: Case) -> Result:
    data = case.data
    prior, scores = _best(
        GROUP_PRIORS,
        lambda prior: baselines.group_popularity(data.train, data.groups, data.n_movies, prior),
        lambda scores: -top_k_metrics(scores, data.eval)["recall_at_10_filtered"],
    )
    return _result(case, top_k_values(scores, data.test), prior=prior)


def _group_popularity_in_hindsight(case: Case) -> Result:
    data = case.data
    return _result(
        case, top_k_values(baselines.group_popularity(data.test, data.groups, data.n_movies, 1.0), data.test)
    )


def _biases(case: Case) -> Result:
    data = case.data
    penalty, model = _best(
        BIAS_PENALTIES,
        lambda penalty: baselines.fit_biases(data.train, data.n_users, data.n_movies, penalty),
        lambda model: _eval_rmse(model, data),
    )
    return _result(case, _errors(model, data.test), penalty=penalty)


def _ease(case: Case) -> Result:
    data = case.data
    seen, known = data.matrix(data.train), data.matrix(data.known)
    penalty, weights = _best(
        EASE_PENALTIES,
        lambda penalty: baselines.ease(seen, penalty),
        lambda weights: -top_k_metrics(_linear(seen, weights), data.eval)["recall_at_10_filtered"],
    )
    return _result(case, top_k_values(_linear(known, weights), data.test), penalty=penalty)


def _linear(seen: sparse.csr_array, weights: np.ndarray) -> np.ndarray:
    return seen.astype(np.float32) @ weights


def _ials(case: Case) -> Result:
    data = case.data
    seen = data.matrix(data.train)
    (rank, weight, penalty), scores = _best(
        itertools.product(IALS_RANKS, IALS_WEIGHTS, IALS_PENALTIES),
        lambda setting: baselines.ials(seen, *setting, seed=case.seed),
        lambda scores: -top_k_metrics(scores, data.eval)["recall_at_10_filtered"],
    )
    return _result(case, top_k_values(scores, data.test), rank=rank, weight=weight, penalty=penalty)


def _factors(case: Case) -> Result:
    data = case.data
    (rank, penalty), model = _best(
        FACTOR_SETTINGS,
        lambda setting: baselines.fit_factors(data.train, data.n_users, data.n_movies, *setting, seed=case.seed),
        lambda model: _eval_rmse(model, data),
    )
    return _result(case, _errors(model, data.test), rank=rank, penalty=penalty)


def _best(
    settings: Iterable[Setting], fit: Callable[[Setting], Model], loss: Callable[[Model], float]
) -> tuple[Setting, Model]:
    """The setting, with its model, whose loss is the lowest."""
    # One model at a time is held in memory, since it may be a matrix of all scores.
    fitted = ((setting, fit(setting)) for setting in settings)
    return min(fitted, key=lambda pair: loss(pair[1]))


def _errors(model: baselines.FactorModel, ratings: Ratings) -> Values:
    return rating_values(model.predict(ratings.users, ratings.movies), ratings.stars)


def _eval_rmse(model: baselines.FactorModel, data: Dataset) -> float:
    return means(_errors(model, data.eval))["rmse"]


def _notebook(name: str) -> Callable[[Case], Result]:
    def measure(case: Case) -> Result:
        # Imported here, since the simple methods need no TensorFlow.
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


def _own(title: str, model: str, **changes: Any) -> Method:
    def measure(case: Case) -> Result:
        from benchmarks import models
        from trainers.registry import spec_of

        ready = case.transformed()
        hparams = getattr(case.models, model).model_copy(update={"seed": case.seed, **changes})
        trained = models.train(spec_of(model, hparams.model_dump()), hparams, ready.splits)
        return Result(models.measure(trained.model, ready), ready.test_users, {"eval": trained.value})

    return Method(title, measure, model)


METHODS = {
    "popularity": Method("popularity", _popularity("train")),
    # Close to the best list that is the same for everybody. No method can know it, since it is counted on test ratings.
    "popularity-hindsight": Method("popularity in hindsight, among the test ratings", _popularity("test")),
    "groups": Method("popularity by gender and age", _group_popularity),
    "groups-hindsight": Method(
        "popularity by gender and age in hindsight, among the test ratings", _group_popularity_in_hindsight
    ),
    "bias": Method("user + movie bias", _biases),
    "ease": Method("EASE", _ease),
    "ials": Method("iALS", _ials),
    "mf": Method("biased matrix factorisation", _factors),
    "notebook-two-tower": Method("notebooks' two-tower, re-run", _notebook("TWO_TOWER")),
    "notebook-ranking": Method("notebooks' ranking, re-run", _notebook("RANKING")),
    "notebook-ranking-tuned": Method("notebooks' ranking, tuned, re-run", _notebook("RANKING_TUNED")),
    "notebook-joint": Method("notebooks' joint, re-run", _notebook("JOINT")),
    "retrieval": _own("**retrieval**", "retrieval"),
    "ranking": _own("**ranking**", "ranking"),
    "dcn": _own("**dcn**", "dcn"),
    "dnn": _own("DNN with as many weights as dcn", "dcn", structure="deep", projection_dim=None),
    "joint": _own("**joint**", "joint"),
    "joint-apart": _own("joint, its two parts sharing nothing", "joint", shared=False),
}
