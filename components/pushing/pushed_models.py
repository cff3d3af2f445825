"""What the metadata store knows of pushed models: which model each version was made of, and which were withdrawn.

A withdrawal is written on the PushedModel artifact and not on the model, although it is the model that is withdrawn:
TFX takes any change of an artifact for other data, and would measure the model, and build a recommender of it, anew.
That a version was pruned, which is to say taken out to free the disk, is written there, too.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from components.pushing.versions import SAVED_MODEL
from components.storage.paths import stored_path

# The inputs of RecommenderBuilder that are models. The model that a warm start takes is no part: what was trained since
# was measured by itself.
PART_INPUTS = ("retrieval_model", "ranking_model")

# Custom property of a PushedModel: the folder NAME/VERSION that is served, as TFX's Pusher calls it.
DESTINATION = "pushed_destination"

# Custom property of a PushedModel, and parameter of a Pusher's execution: why a blessed model was not pushed.
REFUSED = "refused"

_MODEL_INPUT = "model"
_WITHDRAWN, _WHY = "withdrawn", "withdrawn_because"
_PRUNED = "pruned"


@dataclass(frozen=True)
class Withdrawal:
    """That a model was withdrawn.

    Attributes:
      time: when, in UTC.
      why: the reason that was given.
      part: the part that was withdrawn, such as "ranking 1700000000", where the model itself is a recommender made of
        it; empty otherwise.
    """

    time: datetime
    why: str
    part: str = ""

    @property
    def reason(self) -> str:
        """The withdrawal as the reason for which a model is not pushed."""
        withdrawn = f"withdrawn on {self.time:%Y-%m-%d}: {self.why}"
        return f"it is made of {self.part}, {withdrawn}" if self.part else withdrawn


@dataclass(frozen=True)
class Push:
    """A model that was pushed.

    Attributes:
      artifact: the id of the PushedModel artifact.
      model: the id of the Model artifact.
      destination: the folder NAME/VERSION that was served.
      archive: the copy among the artifacts.
      time: when it was pushed, in UTC.
      withdrawal: of this version; None if there is none.
      pruned: whether the version was taken out to free the disk, or is about to be.
    """

    artifact: int
    model: int
    destination: Path
    archive: Path
    time: datetime
    withdrawal: Withdrawal | None
    pruned: bool

    @property
    def name(self) -> str:
        """The name under which the model is served."""
        return self.destination.parent.name

    @property
    def version(self) -> int:
        """The version's number."""
        return int(self.destination.name)

    @property
    def is_there(self) -> bool:
        """Whether the version is still in the folder that it was pushed to."""
        return (self.destination / SAVED_MODEL).is_file()

    def is_in(self, serving: Path) -> bool:
        """Whether it was pushed below a folder, by whatever path that was named then."""
        return self.destination.parent.parent.resolve() == serving.resolve()


def pushes(store: mlmd.MetadataStore) -> list[Push]:
    """All pushes that came to their end, the oldest first."""
    pushed = [a for a in store.get_artifacts_by_type("PushedModel") if a.custom_properties["pushed"].int_value]
    models = _inputs(store, [artifact.id for artifact in pushed], [_MODEL_INPUT])
    return [_push(artifact, *models[artifact.id]) for artifact in sorted(pushed, key=lambda artifact: artifact.id)]


def withdrawals(store: mlmd.MetadataStore, models: Iterable[int]) -> dict[int, Withdrawal]:
    """The withdrawals of those of the given models that were withdrawn, or are made of a part that was.

    Args:
      store: the metadata store.
      models: ids of Model artifacts.
    """
    withdrawn = {push.model: (push, push.withdrawal) for push in pushes(store) if push.withdrawal}
    if not withdrawn:
        return {}
    found = {}
    for model, its_parts in parts(store, models).items():
        if model in withdrawn:
            _, found[model] = withdrawn[model]
        elif its_withdrawn_parts := sorted(its_parts & set(withdrawn)):
            push, withdrawal = withdrawn[its_withdrawn_parts[0]]
            found[model] = replace(withdrawal, part=f"{push.name} {push.version}")
    return found


def refusal(store: mlmd.MetadataStore, model: int) -> str | None:
    """Why a model may not be pushed, however good it is; None if it may.

    It may not if it was withdrawn, or if somebody deleted the version that it was last pushed as: that was meant to
    take it from those who use it, and pushing it under another number would undo it. A version that was pruned was not
    deleted for being bad, so its model may be pushed again.

    Args:
      store: the metadata store.
      model: the id of the Model artifact.
    """
    if withdrawal := withdrawals(store, [model]).get(model):
        return withdrawal.reason
    of_model = [push for push in pushes(store) if push.model == model]
    if not of_model or of_model[-1].is_there or of_model[-1].pruned:
        return None
    last = of_model[-1]
    return (
        f"version {last.version} of {last.name} was pushed on {last.time:%Y-%m-%d} and is no longer there; it was not "
        f"withdrawn, and it is not pushed again. To serve it, copy {_copy(store, last)} to {last.destination}"
    )


def mark_withdrawn(store: mlmd.MetadataStore, push: Push, withdrawal: Withdrawal) -> None:
    """Writes down that the model of a push is withdrawn."""
    (artifact,) = store.get_artifacts_by_id([push.artifact])
    artifact.custom_properties[_WITHDRAWN].string_value = withdrawal.time.isoformat(timespec="seconds")
    artifact.custom_properties[_WHY].string_value = withdrawal.why
    store.put_artifacts([artifact])


def mark_pruned(store: mlmd.MetadataStore, pruned: Iterable[Push]) -> None:
    """Writes down that versions are taken out to free the disk."""
    if numbers := [push.artifact for push in pruned]:
        artifacts = store.get_artifacts_by_id(numbers)
        for artifact in artifacts:
            artifact.custom_properties[_PRUNED].int_value = 1
        store.put_artifacts(artifacts)


def parts(store: mlmd.MetadataStore, models: Iterable[int]) -> dict[int, set[int]]:
    """The models that recommenders are made of, by recommender; an empty set for any other model.

    Args:
      store: the metadata store.
      models: ids of Model artifacts.
    """
    return _inputs(store, models, PART_INPUTS)


def _push(artifact: metadata_store_pb2.Artifact, model: int) -> Push:
    properties = artifact.custom_properties
    withdrawn = None
    if time := properties[_WITHDRAWN].string_value:
        withdrawn = Withdrawal(datetime.fromisoformat(time), properties[_WHY].string_value)
    return Push(
        artifact.id,
        model,
        stored_path(properties[DESTINATION].string_value),
        stored_path(artifact.uri),
        datetime.fromtimestamp(artifact.create_time_since_epoch / 1000, UTC),
        withdrawn,
        pruned=bool(properties[_PRUNED].int_value),
    )


def _copy(store: mlmd.MetadataStore, push: Push) -> Path:
    """Where a copy of a pushed model lies: among the artifacts or, if that one was pruned, the model itself."""
    if push.archive.is_dir():
        return push.archive
    # Imported here, since it takes seconds, and most who ask for pushed models need no such copy.
    from tfx.utils import path_utils

    (model,) = store.get_artifacts_by_id([push.model])
    return stored_path(path_utils.serving_model_path(model.uri))


def _inputs(store: mlmd.MetadataStore, artifacts: Iterable[int], names: Iterable[str]) -> dict[int, set[int]]:
    """The ids of what was read, under one of the given names, by the executions that wrote each of some artifacts.

    Several executions have the same output if all but one took it from the cache; they also have the same inputs.
    """
    inputs: dict[int, set[int]] = {artifact: set() for artifact in artifacts}
    if not inputs:
        return {}
    # MLMD refuses to look for the events of no artifact, or of no execution.
    events = store.get_events_by_artifact_ids(list(inputs))
    written = [event for event in events if event.type == metadata_store_pb2.Event.OUTPUT]
    read = defaultdict(set)
    if written:
        for event in store.get_events_by_execution_ids({event.execution_id for event in written}):
            is_input = event.type == metadata_store_pb2.Event.INPUT
            if is_input and event.path.steps and event.path.steps[0].key in names:
                read[event.execution_id].add(event.artifact_id)
    for event in written:
        inputs[event.artifact_id] |= read[event.execution_id]
    return inputs
