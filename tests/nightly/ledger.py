"""What must become of each model, computed from the raw files and the exported models alone, with pandas and NumPy.

Thresholds are written out here, and not taken from the configuration, and no code of the pipeline's gates, champions or
spans is used.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from tests.components.ingestion.examples_oracle import read_raw

Arrays = dict[str, np.ndarray]

MODELS = ("dcn", "joint", "ranking", "retrieval")
RECOMMENDER = "recommender"
_LATER = ("after_30_days", "after_1_year", "after_25_years")
_RECALL, _ERROR = "recall_at_10_filtered", "squared_error"
_MAIN = {"dcn": (_ERROR,), "ranking": (_ERROR,), "retrieval": (_RECALL,), "joint": (_RECALL, _ERROR)}
_PEOPLE_AT_ONCE = 500  # A request may be of 1,024 people.
# One-sided, with a confidence of .95.
_ERRORS_OF_BOUND = 1.6448536269514722


def place(uri: str | Path) -> str:
    """Where a model lies among the artifacts, as COMPONENT/OUTPUT/EXECUTION, wherever these are."""
    return "/".join(Path(uri).parts[-3:])


def pairs(ratings: pd.DataFrame) -> set[tuple[int, int, int]]:
    """Ratings as user, movie and time."""
    return set(zip(ratings["user_id"], ratings["movie_id"], ratings["timestamp"], strict=True))


@dataclass
class Made:
    """A model that a night made.

    Attributes:
      name: of the model.
      place: as of `place`.
      fitted: the ratings that it was fitted to, as of `pairs`.
      graph: the place of the Transform output that it was trained with.
      parts: the models that a recommender is made of.
      blessed: the last verdict on it.
      withdrawn: whether it was withdrawn itself.
      gone: whether the version that it was last pushed as was deleted by hand.
      pushed: the version that it was last pushed as.
    """

    name: str
    place: str
    fitted: set[tuple[int, int, int]]
    graph: str = ""
    parts: tuple["Made", ...] = ()
    blessed: bool = False
    withdrawn: bool = False
    gone: bool = False
    pushed: str | None = None

    @property
    def may_be_used(self) -> bool:
        return self.blessed and not self.is_withdrawn

    @property
    def is_withdrawn(self) -> bool:
        return self.withdrawn or any(part.withdrawn for part in self.parts)


@dataclass
class Ledger:
    """All models that the nights have made so far, the oldest first."""

    made: list[Made] = field(default_factory=list)

    def find(self, name: str, where: str) -> Made | None:
        return next((each for each in self.made if (each.name, each.place) == (name, where)), None)

    def add(self, made: Made) -> Made:
        """Enters a model, unless it is there, since it came from the cache."""
        known = self.find(made.name, made.place)
        if known is None:
            self.made.append(made)
        return known or made

    def champion(self, candidate: Made, tested: set[tuple[int, int, int]]) -> Made | None:
        """The latest usable model of the same name before a candidate that has seen none of the test rows."""
        earlier = self.made[: self.made.index(candidate)]
        fit = [
            each for each in earlier if each.name == candidate.name and each.may_be_used and not each.fitted & tested
        ]
        return fit[-1] if fit else None

    def pair(self, retrieval: Made, ranking: Made, tested: set[tuple[int, int, int]]) -> tuple[Made, Made] | None:
        """The models that the recommender is made of: the night's own, or the latest usable ones of one graph."""
        if retrieval.may_be_used and ranking.may_be_used:
            return retrieval, ranking
        usable = {
            name: {
                each.graph: each
                for each in self.made
                if each.name == name and each.may_be_used and not each.fitted & tested
            }
            for name in ("retrieval", "ranking")
        }
        for graph in reversed(list(dict.fromkeys(each.graph for each in self.made if each.graph))):
            found = [by_graph[graph] for by_graph in usable.values() if graph in by_graph]
            if len(found) == 2:
                return found[0], found[1]
        return None


def judge(model: str, candidate: Arrays, champion: Arrays | None) -> list[str]:
    """The gates that a model does not pass; none if it is to be blessed.

    Args:
      model: its name.
      candidate: what its `evaluate` says of each test row, float [rows] by output.
      champion: likewise, of the champion.
    """
    return _judge_lists(candidate, champion) if model == RECOMMENDER else _judge_model(model, candidate, champion)


def _judge_model(model: str, candidate: Arrays, champion: Arrays | None) -> list[str]:
    refused = []
    for main in _MAIN[model]:
        if not candidate[f"{main}_gain"].mean() >= 0.005:
            refused.append(f"{main}_gain")
        refused += _forgotten(main, candidate)
        if champion is not None and _is_worse(main, candidate, champion):
            refused.append(f"{main} against the champion's")
    return refused


def _judge_lists(candidate: Arrays, champion: Arrays | None) -> list[str]:
    liked = candidate["is_liked"] > 0
    refused = _forgotten("recall_at_10", candidate)
    if not _best(candidate["recall_at_10_over_retrieval"]) >= -0.002:
        refused.append("recall_at_10_over_retrieval")
    if not candidate["recall_at_10_over_popularity"].mean() >= 0.005:
        refused.append("recall_at_10_over_popularity")
    if not candidate["ndcg_at_10_over_retrieval"][liked].mean() >= 0:
        refused.append("liked ndcg_at_10_over_retrieval")
    if not candidate["ndcg_at_10_over_popularity"][liked].mean() >= 0.005:
        refused.append("liked ndcg_at_10_over_popularity")
    if champion is not None:
        if _is_worse("recall_at_10", candidate, champion):
            refused.append("recall_at_10 against the champion's")
        own, others = ({name: values[liked] for name, values in each.items()} for each in (candidate, champion))
        if _is_worse("ndcg_at_10", own, others):
            refused.append("liked ndcg_at_10 against the champion's")
    return refused


def _is_worse(output: str, candidate: Arrays, champion: Arrays) -> bool:
    sign = -1 if output == _ERROR else 1
    return not _best(sign * (candidate[output] - champion[output])) >= -0.002


def _best(values: np.ndarray) -> float:
    return float(values.mean() + _ERRORS_OF_BOUND * values.std() / np.sqrt(len(values)))


def _forgotten(main: str, candidate: Arrays) -> list[str]:
    """The moments at which a model keeps less than .95 of its quality, even if two standard errors are added."""
    forgotten = []
    for later in _LATER:
        own, there = candidate[main], candidate[f"{main}_{later}"]
        error = (there - own).std() / np.sqrt(len(own))
        if main == _ERROR:
            share = np.sqrt(own.mean() / max(there.mean() - 2 * error, 1e-12))
        else:
            share = (there.mean() + 2 * error) / own.mean() if own.any() else 1.0
        if share < 0.95:
            forgotten.append(f"{main}_{later}")
    return forgotten


def evaluated(folder: Path, records: list[bytes]) -> Arrays:
    """What the signature `evaluate` of a SavedModel says of each row: float64 [rows] by output."""
    evaluate = tf.saved_model.load(str(folder)).signatures["evaluate"]
    parts = [evaluate(tf.constant(records[start : start + 500])) for start in range(0, len(records), 500)]
    return {name: np.concatenate([part[name].numpy() for part in parts]).astype(np.float64) for name in parts[0]}


def check_memory(folder: Path, ratings: pd.DataFrame, newest: Path) -> None:
    """Checks that a recommender knows everybody who ever rated, and recommends what there is and they have not seen.

    Args:
      folder: the SavedModel.
      ratings: all ratings that count.
      newest: folder of the newest span, whose movies are the catalogue.
    """
    loaded = tf.saved_model.load(str(folder))
    ids, offsets, seen = (each.numpy() for each in (loaded.movie_ids, loaded.seen_offsets, loaded.seen_movies))
    known = ratings[ratings["movie_id"].isin(ids[ids > 0])]
    of_user = known.groupby("user_id")["movie_id"].agg(set)
    assert len(offsets) == len(of_user) + 2
    for row, (user, movies) in enumerate(of_user.sort_index().items(), start=1):
        assert set(ids[seen[offsets[row] : offsets[row + 1]]]) == movies, user
    catalogue = set(read_raw(newest)["movies"]["movie_id"])
    people = [*of_user.index, 0]
    for start in range(0, len(people), _PEOPLE_AT_ONCE):
        some = people[start : start + _PEOPLE_AT_ONCE]
        none = tf.zeros([len(some), 0], tf.int64)
        answer = loaded.signatures["serving_default"](
            user_id=tf.constant(some, tf.int64), history_movie_ids=none, history_ratings=tf.cast(none, tf.float32)
        )
        for user, movies in zip(some, answer["movie_id"].numpy(), strict=True):
            recommended = movies[movies > 0].tolist()
            assert len(set(recommended)) == len(recommended) > 0
            assert set(recommended) <= catalogue - of_user.get(user, set()), user
