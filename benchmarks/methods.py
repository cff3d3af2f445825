"""The measured rows: how each method picks its settings on eval and what it scores on test."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from benchmarks import baselines
from benchmarks.dataset import Dataset
from benchmarks.metrics import rating_metrics, top_k_metrics

EASE_PENALTIES = (500.0, 1000.0, 2000.0)
BIAS_PENALTIES = (1.0, 2.0, 5.0, 10.0)
FACTOR_SETTINGS = ((8, 8.0), (8, 12.0), (16, 16.0))

Setting = TypeVar("Setting")
Model = TypeVar("Model")


@dataclass(frozen=True)
class Result:
    """What a method scores.

    Attributes:
      metrics: value by name, on the test split.
      settings: what was chosen on the eval split.
    """

    metrics: dict[str, float]
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
      title: its name there.
      measure: takes a data set and a seed.
    """

    title: str
    measure: Callable[[Dataset, int], Result]


def _popularity(data: Dataset, seed: int) -> Result:
    counts = baselines.popularity(data.train, data.n_movies)
    scores = np.broadcast_to(counts, (data.n_users, data.n_movies))
    return Result(top_k_metrics(scores, data.test, data.seen()))


def _biases(data: Dataset, seed: int) -> Result:
    penalty, model = _best(
        BIAS_PENALTIES,
        lambda penalty: baselines.fit_biases(data.train, data.n_users, data.n_movies, penalty),
        lambda model: _errors(model, data, on_test=False)["rmse"],
    )
    return Result(_errors(model, data), {"penalty": penalty})


def _ease(data: Dataset, seed: int) -> Result:
    seen = data.seen()
    penalty, scores = _best(
        EASE_PENALTIES,
        lambda penalty: baselines.ease(seen, penalty),
        lambda scores: -top_k_metrics(scores, data.eval, seen)["recall_at_10_filtered"],
    )
    return Result(top_k_metrics(scores, data.test, seen), {"penalty": penalty})


def _factors(data: Dataset, seed: int) -> Result:
    (rank, penalty), model = _best(
        FACTOR_SETTINGS,
        lambda setting: baselines.fit_factors(data.train, data.n_users, data.n_movies, *setting, seed=seed),
        lambda model: _errors(model, data, on_test=False)["rmse"],
    )
    return Result(_errors(model, data), {"rank": rank, "penalty": penalty})


def _best(
    settings: Iterable[Setting], fit: Callable[[Setting], Model], loss: Callable[[Model], float]
) -> tuple[Setting, Model]:
    """The setting, with its model, whose loss is the lowest."""
    fitted = [(setting, fit(setting)) for setting in settings]
    return min(fitted, key=lambda pair: loss(pair[1]))


def _errors(model: baselines.FactorModel, data: Dataset, on_test: bool = True) -> dict[str, float]:
    ratings = data.test if on_test else data.eval
    return rating_metrics(model.predict(ratings.users, ratings.movies), ratings.stars)


def _notebook(name: str) -> Callable[[Dataset, int], Result]:
    def measure(data: Dataset, seed: int) -> Result:
        # Imported late: the other methods need no TensorFlow.
        from benchmarks import notebooks

        notebook: notebooks.Notebook = getattr(notebooks, name)
        model = notebooks.train_notebook(notebook, data.train, data.n_users, data.n_movies, seed)
        metrics: dict[str, float] = {}
        if notebook.retrieval_weight:
            metrics |= top_k_metrics(model.scores(data.n_users, data.n_movies), data.test, data.seen())
        if notebook.rating_weight:
            metrics |= rating_metrics(model.stars(data.test), data.test.stars)
        return Result(metrics)

    return measure


METHODS = {
    "popularity": Method("popularity", _popularity),
    "bias": Method("user + movie bias", _biases),
    "ease": Method("EASE", _ease),
    "mf": Method("biased matrix factorisation", _factors),
    "two-tower": Method("notebooks' two-tower, re-run on this split", _notebook("TWO_TOWER")),
    "ranking": Method("notebooks' ranking, re-run on this split", _notebook("RANKING")),
    "ranking-tuned": Method("notebooks' ranking, tuned, re-run on this split", _notebook("RANKING_TUNED")),
    "joint": Method("notebooks' joint, re-run on this split", _notebook("JOINT")),
}
