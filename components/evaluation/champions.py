"""Which earlier model a candidate is compared with, training starts from, or the recommender is made of, and why.

The champion of a candidate is the latest model that the same node made before it, that was blessed, neither withdrawn
nor pruned, and that is known not to have been fitted to the candidate's test rows. It is looked up in the metadata
alone, by the same code on every runner; see `components.metadata.lineage`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ml_metadata as mlmd
import numpy as np
from ml_metadata.proto import metadata_store_pb2
from tfx.components.evaluator import constants
from tfx.types import Artifact

from components.ingestion.row_keys import RowKeys, read_row_keys
from components.metadata.lineage import Lineage
from components.pushing.pushed_models import withdrawals

# Whose files were pruned, or are about to be.
_GONE = (metadata_store_pb2.Artifact.MARKED_FOR_DELETION, metadata_store_pb2.Artifact.DELETED)


@dataclass(frozen=True)
class Choice:
    """An earlier model, or none.

    Attributes:
      model: the model; None if there is none that can be taken.
      blessing: its blessing.
      why: why later models were passed over, or there is none; "" if the latest blessed one was taken.
    """

    model: Artifact | None
    blessing: Artifact | None
    why: str


@dataclass(frozen=True)
class Pair:
    """The models that the recommender is made of. They were trained with one Transform output, and share its indices.

    Attributes:
      models: the model of each part; the parts may have one and the same.
      blessings: its blessing, likewise. One that does not bless tells that there is no pair to take.
      graph: the id of the Transform output of both; None if that of the run is theirs.
      why: why the models of the run were passed over, or cannot be used; "" if they were taken.
    """

    models: Mapping[str, Artifact]
    blessings: Mapping[str, Artifact]
    graph: int | None
    why: str


class Champions:
    """Chooses among the models and blessings of a metadata store."""

    def __init__(self, store: mlmd.MetadataStore, models: Iterable[Artifact], blessings: Iterable[Artifact]):
        """Takes all models and blessings, of whatever node and pipeline.

        Those whose files are gone are not considered: a resolver is not even handed them, though a report is.
        """
        models, blessings = (
            [each for each in all_ if not _is_gone(each.mlmd_artifact)] for all_ in (models, blessings)
        )
        self._store, self._lineage = store, Lineage(store)
        self._models = sorted(models, key=lambda model: model.id, reverse=True)
        # Of a model that was measured more than once, as after a change of the gates, the last verdict counts.
        # It may be an earlier one from the cache, where the gates were changed back.
        given = self._lineage.last_given(blessing.id for blessing in blessings)
        verdicts = {
            blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
            for blessing in sorted(blessings, key=lambda blessing: (given[blessing.id], blessing.id))
        }
        self._blessings = {model: blessing for model, blessing in verdicts.items() if is_blessed(blessing)}

    def of_candidate(self, candidates: Iterable[Artifact]) -> Choice:
        """The model that a candidate is compared with.

        Args:
          candidates: the candidate; some runners hand over all models that its node ever made, of which it is the
            latest.
        """
        candidate = max(candidates, key=lambda model: model.id)
        producer = self._lineage.producer(candidate.id)
        tested = _tested(_keys(self._lineage.own_data(candidate.id)))
        earlier = (model for model in self._models if model.id < candidate.id)
        return self._latest_blessed(earlier, producer, tested)

    def of_next(self, pipeline: str, node: str, output: str, tested: np.ndarray) -> Choice:
        """The model that the next one will be compared with, before that one is there.

        Args:
          pipeline: the name of the pipeline.
          node: the id of the node that makes the model.
          output: the name of the node's output.
          tested: uint64 [test rows], the keys of the rows that both will be measured on.
        """
        return self._latest_blessed(self._models, (f"{pipeline}.{node}", output), tested)

    def to_start_from(self, node: str, graphs: Iterable[Artifact]) -> Choice:
        """The model that training starts from.

        Models of the same data are passed over, so that a repeated run finds the same model to start from, and its
        Trainer still comes from the cache. Besides, a model that starts from another of the same data would only be
        trained for longer.

        Args:
          node: the id of the Trainer.
          graphs: the Transform output of the run, which tells what it is trained on; some runners hand over all that
            there ever were, of which it is the latest.
        """
        graph = max(graphs, key=lambda each: each.id)
        made_by, trained = self._lineage.producer(graph.id), self._lineage.data(graph.id)
        if made_by is None:
            return Choice(None, None, "the metadata do not say which pipeline this is")
        pipeline = made_by[0].partition(".")[0]
        newest = _newest(trained)
        maker = (f"{pipeline}.{node}", "model")
        # The maker is asked for first, since finding all that is behind a model takes many look-ups.
        own = (model for model in self._models if self._lineage.producer(model.id) == maker)
        others = (model for model in own if _newest(self._lineage.own_data(model.id)) != newest)
        return self._latest_blessed(others, maker, _tested(_keys(trained)))

    def pair_for_recommender(
        self, models: Mapping[str, Iterable[Artifact]], blessings: Mapping[str, Iterable[Artifact]]
    ) -> Pair:
        """The models that the recommender of a run is made of: those of the run, or the latest blessed pair before it.

        Args:
          models: the run's model of each part; some runners hand over all that there ever were, of which it is the
            latest.
          blessings: what the run's Evaluators said of them, likewise.

        Returns:
          If there is no such pair, the run's own models and blessings: nothing is built if one is refused, and nothing
          is pushed if one is withdrawn.
        """
        own = {part: max(of_part, key=lambda model: model.id) for part, of_part in models.items()}
        verdicts = {part: max(of_part, key=lambda blessing: blessing.id) for part, of_part in blessings.items()}
        withdrawn = withdrawals(self._store, [model.id for model in own.values()])
        refused = [part for part, verdict in verdicts.items() if not is_blessed(verdict)]
        if not refused and not withdrawn:
            return Pair(own, verdicts, None, "")
        problems = [f"this run's {part} was not blessed" for part in refused]
        problems += [
            f"this run's {part} was {withdrawn[own[part].id].reason}" for part in own if own[part].id in withdrawn
        ]
        keys = _keys(self._lineage.own_data(next(iter(own.values())).id))
        blessed = {part: self._blessed_by_graph(model) for part, model in own.items()}
        for graph in sorted(set.intersection(*(set(by_graph) for by_graph in blessed.values())), reverse=True):
            pair = {}
            for part, by_graph in blessed.items():
                found = {model.id: self._problem_of_part(model, keys) for model in by_graph[graph]}
                problems += [problem for number, problem in found.items() if problem and number not in withdrawn]
                usable = [model for model in by_graph[graph] if not found[model.id]]
                if not usable:
                    break
                pair[part] = usable[0]
            else:
                chosen = {part: self._blessings[model.id] for part, model in pair.items()}
                return Pair(pair, chosen, graph, "; ".join(dict.fromkeys(problems)))
        problems = list(dict.fromkeys(problems))
        return Pair(own, verdicts, None, "; ".join([*problems, "there is no earlier pair of blessed models to take"]))

    def _blessed_by_graph(self, own: Artifact) -> dict[int, list[Artifact]]:
        """The blessed models of the node that made a run's own, by their Transform output, the latest first."""
        producer, found = self._lineage.producer(own.id), dict[int, list[Artifact]]()
        for model in self._models:
            if model.id in self._blessings and producer is not None and self._lineage.producer(model.id) == producer:
                graph = self._lineage.transform_graph(model.id)
                if graph is not None and not _is_gone(graph):
                    found.setdefault(graph.id, []).append(model)
        return found

    def _problem(self, model: Artifact, tested: np.ndarray | None) -> str:
        """Why a blessed model cannot be taken where these rows are tested; "" if it can."""
        withdrawal = withdrawals(self._store, [model.id]).get(model.id)
        problem = f"was not taken: {withdrawal.reason}" if withdrawal else self._has_seen(model, tested)
        return problem and f"model {model.id} {problem}"

    def _problem_of_part(self, model: Artifact, keys: RowKeys | None) -> str:
        """Why a blessed model cannot be a part of a recommender; "" if it can.

        The second stage is fitted to the eval rows. It would trust a part too much that was trained on them.
        """
        problem = self._problem(model, _tested(keys))
        if problem or keys is None:
            return problem
        data = (read_row_keys(examples.uri) for examples in self._lineage.data(model.id))
        trained = np.concatenate([keys.train[:0], *(each.train for each in data if each is not None)])
        count = int(np.isin(keys.eval, trained).sum())
        return f"model {model.id} was trained on {count} of this run's {len(keys.eval)} eval rows" if count else ""

    def _latest_blessed(
        self,
        models: Iterable[Artifact],
        producer: tuple[str, str] | None,
        tested: np.ndarray | None,
    ) -> Choice:
        """The latest of the models that was blessed and has not seen the test rows."""
        if producer is None:
            return Choice(None, None, "the metadata do not say which node made the candidate")
        passed_over: list[str] = []
        for model in models:
            blessing = self._blessings.get(model.id)
            if blessing is None or self._lineage.producer(model.id) != producer:
                continue
            problem = self._problem(model, tested)
            if not problem:
                return Choice(model, blessing, "; ".join(passed_over))
            passed_over.append(problem)
        return Choice(None, None, "; ".join(passed_over) or "no earlier model was blessed")

    def _has_seen(self, model: Artifact, tested: np.ndarray | None) -> str:
        """Why a model must not be measured on these test rows; "" if it may."""
        if tested is None:
            return "may have seen this run's test rows, which are not on record"
        seen = np.zeros(len(tested), bool)
        for examples in self._lineage.data(model.id):
            keys = read_row_keys(examples.uri)
            if keys is None:
                return f"may have been fitted to this run's test rows: those of {examples.uri} are not on record"
            seen |= np.isin(tested, keys.fitted)
        return f"was fitted to {seen.sum()} of this run's {len(tested)} test rows" if seen.any() else ""


def is_blessed(blessing: Artifact) -> bool:
    """Whether an Evaluator blessed the model that it measured."""
    return bool(blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == 1)


def _is_gone(artifact: metadata_store_pb2.Artifact) -> bool:
    return artifact.state in _GONE


def _newest(data: list[metadata_store_pb2.Artifact]) -> int | None:
    return max((examples.id for examples in data), default=None)


def _keys(data: list[metadata_store_pb2.Artifact]) -> RowKeys | None:
    """The keys of the rows of the newest of some data; None if they are not on record."""
    newest = _newest(data)
    return next((read_row_keys(examples.uri) for examples in data if examples.id == newest), None)


def _tested(keys: RowKeys | None) -> np.ndarray | None:
    return None if keys is None else keys.test
