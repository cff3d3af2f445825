"""On every runner, a candidate that is 2 % worse than its champion is refused, and one that is 2 % better is pushed.

Each night has other data, and its models are measured beside the champion on that night's test rows, with the
tolerances and the confidence that a configuration has if it says nothing else.
"""

from dataclasses import dataclass
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.types import Artifact, artifact_utils, standard_artifacts

from components.evaluation.champion_resolvers import CANDIDATE, MODEL, MODEL_BLESSING, ChampionStrategy
from components.pushing.versions import SAVED_MODEL
from pipeline.local.report import read_evaluation, read_refusals
from tests.pipeline.champion_pipeline import RECALL, RMSE, night_pipeline, run_on, store_config

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

# Each with whether the resolvers are given all models that the candidate's node ever made.
RUNNERS = [("tfx_local", False), ("local", False), ("beam", False), ("nodes", False), ("local", True)]

# By model: the output that is compared, what it is of the first champion, and each night's recall or RMSE as a part of
# the first night's. The second is the worse candidate and the third is the better one.
MEASURED = {
    "retrieval": ("recall_at_10_filtered", RECALL, (1.0, 0.98, 1.02)),
    "ranking": ("squared_error", RMSE**2, (1.0, 1.02, 0.98)),
}


@dataclass
class Night:
    """What a night's Evaluator and Pusher did.

    Attributes:
      model: the id of the model.
      champions: the ids of the models that the Evaluator measured beside it.
      named: the id of the champion that the blessing names.
      metrics: of the output that is compared.
      refusals: the thresholds that were not met.
      blessed: whether all were.
      pushed: whether it was pushed.
    """

    model: int
    champions: list[int]
    named: int | None
    metrics: dict[str, float | None]
    refusals: list[str]
    blessed: bool
    pushed: bool


class Store:
    """Reads what the runs have left in the metadata."""

    def __init__(self, folder: Path):
        self.store = mlmd.MetadataStore(store_config(folder))

    def artifacts(self, kind: type[Artifact], node: str = "") -> list[Artifact]:
        """All artifacts of a kind, by rising id; of one node, whose name is part of the URI, or of all."""
        artifact_type = self.store.get_artifact_type(kind.TYPE_NAME)
        found = self.store.get_artifacts_by_type(kind.TYPE_NAME)
        of_node = sorted((each for each in found if f"/{node}" in each.uri), key=lambda each: each.id)
        return [artifact_utils.deserialize_artifact(artifact_type, each) for each in of_node]

    def inputs(self, artifact: Artifact, name: str) -> list[int]:
        """The ids of an input of the execution that made an artifact."""
        output, inputs = metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.INPUT
        events = self.store.get_events_by_artifact_ids([artifact.id])
        (execution,) = {event.execution_id for event in events if event.type == output}
        events = self.store.get_events_by_execution_ids([execution])
        return [each.artifact_id for each in events if each.type == inputs and each.path.steps[0].key == name]

    def nights(self, name: str) -> list[Night]:
        """What became of the models of a name, in the order of the nights."""
        evaluations = self.artifacts(standard_artifacts.ModelEvaluation, f"Evaluator.{name}/")
        blessings = self.artifacts(standard_artifacts.ModelBlessing, f"Evaluator.{name}/")
        pushed = self.artifacts(standard_artifacts.PushedModel, f"Pusher.{name}/")
        return [
            Night(
                model=blessing.get_int_custom_property("current_model_id"),
                champions=self.inputs(evaluation, "baseline_model"),
                named=blessing.get_int_custom_property("baseline_model_id") or None,
                metrics=read_evaluation(evaluation.uri)[MEASURED[name][0]],
                refusals=read_refusals(evaluation.uri),
                blessed=blessing.get_int_custom_property("blessed") == 1,
                pushed=push.get_int_custom_property("pushed") == 1,
            )
            for evaluation, blessing, push in zip(evaluations, blessings, pushed, strict=True)
        ]


def run_nights(folder: Path, runner: str, whole_history: bool, names: list[str], seed: int) -> list[dict[str, str]]:
    """Runs three nights; returns what `run_on` does, for each."""
    nights = [{name: MEASURED[name][2][index] for name in names} for index in range(3)]
    return [
        run_on(runner, night_pipeline(folder, number, factors, seed, whole_history=whole_history))
        for number, factors in enumerate(nights, start=1)
    ]


def check(folder: Path, name: str) -> None:
    """Checks the three nights of a model."""
    store = Store(folder)
    first, worse, better = store.nights(name)
    models = store.artifacts(standard_artifacts.Model, f"Trainer.{name}/")
    assert [first.model, worse.model, better.model] == [model.id for model in models]

    # The first model meets nobody, and both others meet the first: the second was refused.
    assert (first.champions, first.named) == ([], None)
    for night in (worse, better):
        assert (night.champions, night.named) == ([first.model], first.model)

    output, at_first, _ = MEASURED[name]
    assert (first.refusals, first.blessed, first.pushed) == ([], True, True)
    assert first.metrics["mean_prediction"] == pytest.approx(at_first, rel=0.05)
    (refusal,) = worse.refusals
    assert refusal.startswith(f"{output} against the champion's is -0.0")
    assert refusal.endswith("at best; should be at least -0.0020")
    assert (worse.blessed, worse.pushed) == (False, False)
    assert (better.refusals, better.blessed, better.pushed) == ([], True, True)
    # It is blessed because it is better, not because there were too few rows to tell.
    at_worst = better.metrics["change_at_worst"]
    assert at_worst is not None
    assert at_worst > 0

    # What is served are the first and the better model.
    versions = sorted((folder / "serving" / name).iterdir(), key=lambda version: int(version.name))
    kept = [Path(model.uri, "Format-Serving", SAVED_MODEL).read_bytes() for model in (models[0], models[2])]
    assert [(version / SAVED_MODEL).read_bytes() for version in versions] == kept

    # Given all models that the node ever made, the resolver takes the last for the candidate, and chooses alike.
    everything = {CANDIDATE: models, MODEL: store.artifacts(standard_artifacts.Model)}
    everything[MODEL_BLESSING] = store.artifacts(standard_artifacts.ModelBlessing)
    chosen = ChampionStrategy().resolve_artifacts(store.store, everything)
    assert [model.id for model in chosen[MODEL]] == [first.model]
    assert [each.get_int_custom_property("current_model_id") for each in chosen[MODEL_BLESSING]] == [first.model]


# One model and one seed for each runner; the nightly version has all.
@pytest.mark.parametrize(
    ("runner", "whole_history", "name"),
    [
        ("tfx_local", False, "retrieval"),
        ("local", True, "ranking"),
        ("beam", False, "retrieval"),
        ("nodes", False, "ranking"),
    ],
)
def test_a_worse_candidate_is_refused_and_a_better_one_is_pushed(
    tmp_path: Path, runner: str, whole_history: bool, name: str
) -> None:
    reasons = run_nights(tmp_path, runner, whole_history, [name], seed=0)
    check(tmp_path, name)
    if runner == "nodes":
        (refusal,) = Store(tmp_path).nights(name)[1].refusals
        assert reasons == [{}, {f"Pusher.{name}": f"the model was not blessed; {refusal}"}, {}]


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("runner", "whole_history"), RUNNERS)
def test_whatever_the_seed_worse_candidates_are_refused_and_better_ones_are_pushed(
    tmp_path: Path, runner: str, whole_history: bool, seed: int
) -> None:
    run_nights(tmp_path, runner, whole_history, list(MEASURED), seed)
    for name in MEASURED:
        check(tmp_path, name)
