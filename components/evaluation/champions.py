"""Which earlier model a candidate is compared with, or training starts from, and why there is none.

The champion of a candidate is the latest model that the same node made before it, that was blessed, neither withdrawn
nor pruned, and that is known not to have been fitted to the candidate's test rows. It is looked up in the metadata
alone, by the same code on every runner; see `components.metadata.lineage`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import ml_metadata as mlmd
import numpy as np
from ml_metadata.proto import metadata_store_pb2
from tfx.components.evaluator import constants
from tfx.types import Artifact
from tfx.types.artifact import ArtifactState

from components.ingestion.row_keys import read_row_keys
from components.metadata.lineage import Lineage
from components.pushing.pushed_models import withdrawals

# Resolvers are handed none of these; a report, which looks at all models of the store, is.
_GONE = (ArtifactState.MARKED_FOR_DELETION, ArtifactState.DELETED)


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


class Champions:
    """Chooses among the models and blessings of a metadata store."""

    def __init__(self, store: mlmd.MetadataStore, models: Iterable[Artifact], blessings: Iterable[Artifact]):
        """Takes all models and blessings, of whatever node and pipeline."""
        self._store, self._lineage = store, Lineage(store)
        self._models = sorted(models, key=lambda model: model.id, reverse=True)
        self._blessings = {
            blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
            for blessing in sorted(blessings, key=lambda blessing: blessing.id)
            if blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == 1
        }

    def of_candidate(self, candidates: Iterable[Artifact]) -> Choice:
        """The model that a candidate is compared with.

        Args:
          candidates: the candidate; some runners hand over all models that its node ever made, of which it is the
            latest.
        """
        candidate = max(candidates, key=lambda model: model.id)
        producer, tested = self._lineage.producer(candidate.id), self._lineage.data(candidate.id)
        earlier = (model for model in self._models if model.id < candidate.id)
        return self._latest_blessed(earlier, producer, tested)

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
        others = (model for model in own if _newest(self._lineage.data(model.id)) != newest)
        return self._latest_blessed(others, maker, trained)

    def _latest_blessed(
        self,
        models: Iterable[Artifact],
        producer: tuple[str, str] | None,
        tested: list[metadata_store_pb2.Artifact],
    ) -> Choice:
        """The latest of the models that was blessed and has not seen the test rows of the newest data."""
        if producer is None:
            return Choice(None, None, "the metadata do not say which node made the candidate")
        passed_over: list[str] = []
        for model in models:
            blessing = self._blessings.get(model.id)
            if blessing is None or self._lineage.producer(model.id) != producer:
                continue
            withdrawal = withdrawals(self._store, [model.id]).get(model.id)
            if withdrawal:
                problem = f"was not taken: {withdrawal.reason}"
            else:
                problem = "was pruned" if model.state in _GONE else self._has_seen(model, tested)
            if not problem:
                return Choice(model, blessing, "; ".join(passed_over))
            passed_over.append(f"model {model.id} {problem}")
        return Choice(None, None, "; ".join(passed_over) or "no earlier model was blessed")

    def _has_seen(self, model: Artifact, tested: list[metadata_store_pb2.Artifact]) -> str:
        """Why a model must not be measured on the test rows of the newest of some data; "" if it may."""
        newest = _newest(tested)
        keys = next((read_row_keys(examples.uri) for examples in tested if examples.id == newest), None)
        if keys is None:
            return "may have seen this run's test rows, which are not on record"
        seen = 0
        for examples in self._lineage.data(model.id):
            fitted = read_row_keys(examples.uri)
            if fitted is None:
                return f"may have been fitted to this run's test rows: those of {examples.uri} are not on record"
            seen += np.isin(keys[1], fitted[0]).sum()
        return f"was fitted to {seen} of this run's {len(keys[1])} test rows" if seen else ""


def _newest(data: list[metadata_store_pb2.Artifact]) -> int | None:
    return max((examples.id for examples in data), default=None)
