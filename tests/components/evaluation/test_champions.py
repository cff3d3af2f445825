"""A candidate meets the latest blessed model of its own node that has not seen its test rows, wherever it lies."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import ml_metadata as mlmd
import pandas as pd
import pytest
from ml_metadata.proto import metadata_store_pb2 as pb
from tfx.types import Artifact, standard_artifacts
from tfx.types.artifact import ArtifactState

from components.evaluation.champion_resolvers import (
    CANDIDATE,
    DATA,
    GRAPHS,
    MODEL,
    MODEL_BLESSING,
    BaseModelStrategy,
    ChampionStrategy,
    PartsStrategy,
)
from components.evaluation.champions import Champions, Choice, Pair
from components.ingestion.row_keys import read_row_keys, write_row_keys
from components.ingestion.splits import SPLITS
from components.pushing.pushed_models import Withdrawal, mark_withdrawn, pushes
from tests.components.pushing.recorded import Recorded


@dataclass
class History:
    """A metadata store in which runs are recorded as TFX does it, and the artifacts that they left."""

    store: mlmd.MetadataStore
    folder: Path
    pipeline: str = "nightly"
    models: list[Artifact] = field(default_factory=list)
    blessings: list[Artifact] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def put(self, artifact: Artifact, uri: str = "") -> Artifact:
        type_id = self.store.put_artifact_type(pb.ArtifactType(name=artifact.type_name))
        artifact.uri = uri or str(self.folder / f"{artifact.type_name}-{next(self.numbers)}")
        (number,) = self.store.put_artifacts([pb.Artifact(type_id=type_id, uri=artifact.uri)])
        artifact.id = number
        return artifact

    def execute(self, node: str, inputs: list[Artifact], outputs: dict[str, Artifact], kind: int = pb.Event.OUTPUT):
        """Records an execution of a node."""
        type_id = self.store.put_execution_type(pb.ExecutionType(name=node))
        (execution,) = self.store.put_executions([pb.Execution(type_id=type_id)])
        context_id = self.context_of_node(node)
        self.store.put_attributions_and_associations(
            [], [pb.Association(execution_id=execution, context_id=context_id)]
        )
        events = [pb.Event(type=pb.Event.INPUT, artifact_id=each.id, execution_id=execution) for each in inputs]
        for key, artifact in outputs.items():
            event = pb.Event(type=kind, artifact_id=artifact.id, execution_id=execution)
            event.path.steps.add().key = key
            events.append(event)
        self.store.put_events(events)

    def context_of_node(self, node: str) -> int:
        context_type = self.store.put_context_type(pb.ContextType(name="node"))
        name = f"{self.pipeline}.{node}"
        context = self.store.get_context_by_type_and_name("node", name)
        return context.id if context else self.store.put_contexts([pb.Context(type_id=context_type, name=name)])[0]

    def data(self, rows: dict[str, list[int]]) -> Artifact:
        """Ingests ratings: for each split, the users, who each rated movie 1 at the second 1."""
        examples = self.put(standard_artifacts.Examples())
        users = [(user, split) for split, of_split in rows.items() for user in of_split]
        ratings = pd.DataFrame(
            {
                "user_id": [user for user, _ in users],
                "movie_id": 1,
                "timestamp": 1,
                "split": [SPLITS.index(split) for _, split in users],
            }
        )
        Path(examples.uri).mkdir(parents=True)
        write_row_keys(examples.uri, ratings)
        self.execute("ExampleGen", [], {"examples": examples})
        return examples

    def transform(self, *window: Artifact) -> Artifact:
        graph, transformed = self.put(standard_artifacts.TransformGraph()), self.put(standard_artifacts.Examples())
        self.execute("Transform", list(window), {"transform_graph": graph, "transformed_examples": transformed})
        return graph

    def train(
        self,
        *data: Artifact,
        node: str = "Trainer.ranking",
        blessed: bool | None = True,
        start: Artifact | None = None,
        output: str = "model",
    ) -> Artifact:
        """Trains a model, and blesses it or not (None: it was never evaluated)."""
        inputs = [each for each in data if each.type_name == "TransformGraph"]
        inputs += [self.transform(*data)] if not inputs else []
        model = self.put(standard_artifacts.Model())
        self.execute(node, [*inputs, *([start] if start else [])], {output: model})
        self.models.append(model)
        # A resolver finds it later, and hands it on.
        self.execute("Resolver", self.models, {"model": model}, pb.Event.INTERNAL_OUTPUT)
        if blessed is not None:
            blessing = self.put(standard_artifacts.ModelBlessing())
            blessing.set_int_custom_property("blessed", int(blessed))
            blessing.set_int_custom_property("current_model_id", model.id)
            self.blessings.append(blessing)
        return model

    def champion(self, *candidates: Artifact) -> Choice:
        return Champions(self.store, self.models, self.blessings).of_candidate(candidates)

    def base(self, *graphs: Artifact, trainer: str = "Trainer.ranking") -> Choice:
        return Champions(self.store, self.models, self.blessings).to_start_from(trainer, graphs)


@pytest.fixture
def history(tmp_path: Path) -> History:
    config = pb.ConnectionConfig()
    config.fake_database.SetInParent()
    return History(mlmd.MetadataStore(config), tmp_path)


@pytest.fixture
def night(history: History) -> Callable[[int], Artifact]:
    """Makes the data of a night: other people than those of any other night."""
    return lambda number: history.data({"train": [10 * number, 10 * number + 1], "test": [10 * number + 2]})


def test_the_champion_is_the_latest_blessed_model_of_the_same_node(history: History, night) -> None:
    history.train(night(1))
    second = history.train(night(2))
    history.train(night(3), blessed=False)
    history.train(night(4), node="Trainer.dcn")
    candidate = history.train(night(5), blessed=None)
    assert history.champion(candidate) == Choice(second, history.blessings[1], "")


def test_the_champion_of_a_model_that_is_not_there_yet_is_that_which_it_then_meets(history: History, night) -> None:
    def of_next(data: Artifact) -> Choice:
        keys = read_row_keys(data.uri)
        assert keys is not None
        champions = Champions(history.store, history.models, history.blessings)
        return champions.of_next("nightly", "Trainer.ranking", "model", keys.test)

    assert of_next(night(1)) == Choice(None, None, "no earlier model was blessed")
    history.train(night(1))
    leaky = history.train(history.data({"train": [31], "test": [1]}))
    history.train(night(2), node="Trainer.dcn")
    data = history.data({"train": [3], "test": [31, 32]})
    planned = of_next(data)
    assert planned.why == f"model {leaky.id} was fitted to 1 of this run's 2 test rows"
    assert history.champion(history.train(data, blessed=None)) == planned


def test_a_candidate_is_not_its_own_champion(history: History, night) -> None:
    first = history.train(night(1))
    assert history.champion(first) == Choice(None, None, "no earlier model was blessed")
    second = history.train(night(2))
    assert history.champion(second).model is first
    # Taken from the cache in a later run, the first model meets what it met then.
    assert history.champion(first).model is None


def test_of_all_models_that_the_node_ever_made_the_candidate_is_the_latest(history: History, night) -> None:
    first, second, third = (history.train(night(number)) for number in (1, 2, 3))
    assert history.champion(first, third, second).model is second


def test_it_does_not_matter_where_artifacts_lie(history: History, night) -> None:
    first = history.train(night(1))
    first.uri = "/mnt/elsewhere/model/1"
    candidate = history.train(night(2), blessed=None)
    candidate.uri = "gs://bucket/elsewhere/2"
    assert history.champion(candidate).model is first


def test_a_model_of_another_pipeline_or_output_is_no_champion(history: History, night) -> None:
    history.pipeline = "other"
    history.train(night(1))
    history.pipeline = "nightly"
    history.train(night(2), output="old_model")
    candidate = history.train(night(3), blessed=None)
    assert history.champion(candidate) == Choice(None, None, "no earlier model was blessed")


def test_a_model_that_was_fitted_to_test_rows_is_passed_over(history: History) -> None:
    older = history.train(history.data({"train": [1, 2], "test": [3]}))
    leaky = history.train(history.data({"train": [3, 4, 5], "test": [1]}))
    # The split has changed: people 4 and 5 are test rows now.
    candidate = history.train(history.data({"train": [1, 3], "test": [4, 5, 6]}), blessed=None)
    why = f"model {leaky.id} was fitted to 2 of this run's 3 test rows"
    assert history.champion(candidate) == Choice(older, history.blessings[0], why)


def test_what_a_model_started_from_counts_as_its_own_data(history: History, night) -> None:
    leaky = history.train(history.data({"train": [1, 2], "test": [3]}))
    warm = history.train(night(2), start=leaky)
    candidate = history.train(history.data({"train": [8], "test": [1]}), blessed=None)
    choice = history.champion(candidate)
    assert choice.model is None
    assert choice.why == "; ".join(
        f"model {model.id} was fitted to 1 of this run's 1 test rows" for model in (warm, leaky)
    )


def test_every_span_of_a_window_counts(history: History, night) -> None:
    window = [history.data({"train": [1], "test": [2]}), night(2)]
    leaky = history.train(*window)
    candidate = history.train(window[1], history.data({"train": [5], "test": [1, 6]}), blessed=None)
    assert history.champion(candidate).why == f"model {leaky.id} was fitted to 1 of this run's 2 test rows"


@pytest.mark.parametrize("whose", ["champion", "candidate"])
def test_a_model_is_not_trusted_if_rows_are_not_on_record(history: History, night, whose: str) -> None:
    earlier, later = night(1), night(2)
    champion = history.train(earlier)
    (Path((earlier if whose == "champion" else later).uri) / "row_keys.npz").unlink()
    choice = history.champion(history.train(later, blessed=None))
    assert choice.model is None
    assert choice.why.startswith(f"model {champion.id} may have ")
    assert "not on record" in choice.why


def withdraw(history: History, model: Artifact) -> None:
    recorded = Recorded(history.store)
    recorded.push(model.id, history.folder / "ranking" / "17")
    mark_withdrawn(history.store, pushes(history.store)[-1], Withdrawal(datetime(2030, 1, 2, tzinfo=UTC), "too bad"))


def test_a_withdrawn_model_is_no_champion_and_no_training_starts_from_it(history: History, night) -> None:
    older, withdrawn = history.train(night(1)), history.train(night(2))
    data = night(3)
    candidate, graph = history.train(data, blessed=None), history.transform(data)
    assert [history.champion(candidate).model, history.base(graph).model] == [withdrawn, withdrawn]
    withdraw(history, withdrawn)
    why = f"model {withdrawn.id} was not taken: withdrawn on 2030-01-02: too bad"
    assert history.champion(candidate) == history.base(graph) == Choice(older, history.blessings[0], why)


@pytest.mark.parametrize("state", [ArtifactState.MARKED_FOR_DELETION, ArtifactState.DELETED])
def test_a_model_whose_files_are_gone_is_no_champion_and_no_training_starts_from_it(
    history: History, night, state: str
) -> None:
    older, gone = history.train(night(1)), history.train(night(2))
    data = night(3)
    candidate, graph = history.train(data, blessed=None), history.transform(data)
    assert [history.champion(candidate).model, history.base(graph).model] == [gone, gone]
    gone.state = state
    assert history.champion(candidate) == history.base(graph) == Choice(older, history.blessings[0], "")


def test_the_keys_of_rows_that_were_pruned_still_tell_what_a_model_has_seen(history: History) -> None:
    seen = history.data({"train": [1, 2], "test": [3]})
    (artifact,) = history.store.get_artifacts_by_id([seen.id])
    artifact.state = pb.Artifact.DELETED
    history.store.put_artifacts([artifact])
    earlier = history.train(seen)
    unseen = history.champion(history.train(history.data({"train": [7], "test": [8]}), blessed=None))
    assert unseen == Choice(earlier, history.blessings[0], "")
    leaky = history.champion(history.train(history.data({"train": [7], "test": [2, 8]}), blessed=None))
    assert leaky.why.endswith(f"model {earlier.id} was fitted to 1 of this run's 2 test rows")


def test_a_recommender_that_is_made_of_a_withdrawn_model_is_no_champion(history: History, night) -> None:
    recorded = Recorded(history.store)
    part = history.train(night(1))
    data = night(2)
    first = history.train(data, node="RecommenderBuilder", output="recommender")
    made_of = history.train(data, node="RecommenderBuilder", output="recommender")
    recorded._write(recorded.execution("RecommenderBuilder"), {"ranking_model": part.id}, "recommender", made_of.id)
    candidate = history.train(night(3), node="RecommenderBuilder", output="recommender", blessed=None)
    assert [history.champion(candidate).model] == [made_of]
    withdraw(history, part)
    choice = history.champion(candidate)
    assert choice.model is first
    assert choice.why == f"model {made_of.id} was not taken: it is made of ranking 17, withdrawn on 2030-01-02: too bad"


def test_the_resolver_hands_on_the_champion_and_the_candidate(history: History, night) -> None:
    champion = history.train(night(1))
    candidate = history.train(night(2), blessed=None)
    inputs = {CANDIDATE: [candidate], MODEL: history.models, MODEL_BLESSING: history.blessings}
    resolved = ChampionStrategy().resolve_artifacts(history.store, inputs)
    assert resolved == {CANDIDATE: [candidate], MODEL: [champion], MODEL_BLESSING: history.blessings}
    # Given all models that the node ever made, it hands on each model once.
    whole = inputs | {CANDIDATE: [champion, candidate]}
    assert ChampionStrategy().resolve_artifacts(history.store, whole) == resolved
    first = {CANDIDATE: [champion], MODEL: history.models, MODEL_BLESSING: history.blessings}
    assert ChampionStrategy().resolve_artifacts(history.store, first) == {
        CANDIDATE: [champion],
        MODEL: [],
        MODEL_BLESSING: [],
    }


def test_where_nothing_was_made_there_is_nothing_to_compare(history: History, night) -> None:
    history.train(night(1))
    inputs = {CANDIDATE: [], MODEL: history.models, MODEL_BLESSING: history.blessings}
    nothing: dict[str, list[Artifact]] = {CANDIDATE: [], MODEL: [], MODEL_BLESSING: []}
    assert ChampionStrategy().resolve_artifacts(history.store, inputs) == nothing


def test_training_starts_from_the_latest_blessed_model_of_other_data(history: History, night) -> None:
    history.train(night(1))
    tuesday = history.train(night(2))
    history.train(night(3), blessed=False)
    history.train(night(4), node="Trainer.dcn")
    graph = history.transform(night(5))
    assert history.base(graph).model is tuesday
    inputs = {DATA: [graph], MODEL: history.models, MODEL_BLESSING: history.blessings}
    resolved = BaseModelStrategy("Trainer.ranking").resolve_artifacts(history.store, inputs)
    assert resolved == {DATA: [graph], MODEL: [tuesday], MODEL_BLESSING: [history.blessings[1]]}


def test_training_again_on_the_same_data_starts_from_the_same_model(history: History, night) -> None:
    monday = history.train(night(1))
    graph = history.transform(night(2))
    for _ in range(2):
        choice = history.base(graph)
        assert choice.model is monday
        # The second time as the result of the first, which has Monday's data behind it, too.
        history.train(graph, start=choice.model)
    assert history.base(history.transform(night(3))).model is history.models[-1]


def test_of_all_graphs_that_there_ever_were_the_latest_tells_the_data(history: History, night) -> None:
    graphs = [history.transform(night(number)) for number in (1, 2, 3)]
    first, second, _ = (history.train(graph) for graph in graphs)
    assert history.base(graphs[2], graphs[0], graphs[1]).model is second
    assert history.base(graphs[1]).model is not first  # A later model of other data is there.


def test_training_does_not_start_from_a_model_that_has_seen_the_test_rows(history: History) -> None:
    leaky = history.train(history.data({"train": [1, 2], "test": [3]}))
    graph = history.transform(history.data({"train": [3], "test": [2]}))
    assert history.base(graph) == Choice(None, None, f"model {leaky.id} was fitted to 1 of this run's 1 test rows")


def test_training_starts_from_scratch_without_a_blessed_model(history: History, night) -> None:
    history.train(night(1), blessed=False)
    assert history.base(history.transform(night(2))) == Choice(None, None, "no earlier model was blessed")


class Night:
    """The retriever and the ranker that one night trained with one Transform output."""

    def __init__(self, history: History, data: Artifact, retrieval: bool = True, ranking: bool = True):
        self.graph = history.transform(data)
        self.models, self.blessings = {}, {}
        for part, blessed in {"retrieval": retrieval, "ranking": ranking}.items():
            self.models[part] = history.train(self.graph, node=f"Trainer.{part}", blessed=blessed)
            self.blessings[part] = history.blessings[-1]


def pair_of(history: History, night: Night) -> Pair:
    return Champions(history.store, history.models, history.blessings).pair_for_recommender(
        {part: [model] for part, model in night.models.items()},
        {part: [blessing] for part, blessing in night.blessings.items()},
    )


def test_a_recommender_is_made_of_the_models_of_its_run_if_both_are_blessed(history: History, night) -> None:
    Night(history, night(1))
    tonight = Night(history, night(2))
    assert pair_of(history, tonight) == Pair(tonight.models, tonight.blessings, None, "")


@pytest.mark.parametrize("refused", [["retrieval"], ["ranking"], ["retrieval", "ranking"]])
def test_a_recommender_is_made_of_the_latest_pair_of_one_night_if_a_part_is_refused(
    history: History, night, refused: list[str]
) -> None:
    Night(history, night(1))
    latest = Night(history, night(2))
    # Each of these nights has one blessed model, of other indices than the other's.
    Night(history, night(3), retrieval=False)
    Night(history, night(4), ranking=False)
    tonight = Night(history, night(5), **dict.fromkeys(refused, False))
    why = "; ".join(f"this run's {part} was not blessed" for part in refused)
    assert pair_of(history, tonight) == Pair(latest.models, latest.blessings, latest.graph.id, why)


def test_of_the_models_of_one_graph_the_latest_blessed_one_is_taken(history: History, night) -> None:
    earlier = Night(history, night(1))
    again = history.train(earlier.graph, node="Trainer.ranking")
    history.train(earlier.graph, node="Trainer.ranking", blessed=False)
    pair = pair_of(history, Night(history, night(2), ranking=False))
    assert pair.models == {"retrieval": earlier.models["retrieval"], "ranking": again}


def test_a_pair_that_has_seen_the_test_rows_is_passed_over(history: History) -> None:
    older = Night(history, history.data({"train": [1, 2], "test": [3]}))
    leaky = Night(history, history.data({"train": [3, 4, 5], "test": [1]}))
    pair = pair_of(history, Night(history, history.data({"train": [1], "test": [4, 6]}), ranking=False))
    assert pair.models == older.models
    problem = f"model {leaky.models['retrieval'].id} was fitted to 1 of this run's 2 test rows"
    assert pair.why == f"this run's ranking was not blessed; {problem}"


def test_a_pair_that_was_trained_on_the_eval_rows_is_passed_over(history: History) -> None:
    # The second stage is fitted to eval rows. Between the second night and the third their share has grown.
    older = Night(history, history.data({"train": [1], "eval": [4, 5], "test": [3]}))
    latest = Night(history, history.data({"train": [4, 5], "eval": [6], "test": [3]}))
    pair = pair_of(history, Night(history, history.data({"train": [1], "eval": [4, 5, 6], "test": [7]}), ranking=False))
    assert pair.models == older.models
    problem = f"model {latest.models['retrieval'].id} was trained on 2 of this run's 3 eval rows"
    assert pair.why == f"this run's ranking was not blessed; {problem}"


def test_a_pair_with_a_withdrawn_model_is_passed_over_and_so_is_the_runs_own(history: History, night) -> None:
    older, latest = Night(history, night(1)), Night(history, night(2))
    assert pair_of(history, latest).why == ""
    withdraw(history, latest.models["ranking"])
    pair = pair_of(history, latest)
    assert (pair.models, pair.graph) == (older.models, older.graph.id)
    assert pair.why == "this run's ranking was withdrawn on 2030-01-02: too bad"
    pair = pair_of(history, Night(history, night(3), ranking=False))
    assert pair.models == older.models
    assert "was not taken: withdrawn on 2030-01-02: too bad" in pair.why


def test_without_an_earlier_pair_the_run_keeps_its_own_with_the_blessing_that_refuses_it(
    history: History, night
) -> None:
    Night(history, night(1), ranking=False)
    tonight = Night(history, night(2), retrieval=False)
    why = "this run's retrieval was not blessed; there is no earlier pair of blessed models to take"
    assert pair_of(history, tonight) == Pair(tonight.models, tonight.blessings, None, why)


def test_a_model_that_was_measured_anew_has_its_last_verdict(history: History, night) -> None:
    monday = Night(history, night(1))
    verdict = history.put(standard_artifacts.ModelBlessing())
    verdict.set_int_custom_property("blessed", 0)
    verdict.set_int_custom_property("current_model_id", monday.models["ranking"].id)
    history.blessings.append(verdict)
    assert "no earlier pair" in pair_of(history, Night(history, night(2), ranking=False)).why
    assert history.champion(history.train(night(3), blessed=None)).model is None


def test_a_model_of_the_run_from_the_cache_goes_with_an_earlier_one_of_its_graph(history: History, night) -> None:
    Night(history, night(1))
    tonight = Night(history, night(2))
    # The same day another ranker is tried; the retriever comes from the cache.
    again = Night.__new__(Night)
    ranking = history.train(tonight.graph, node="Trainer.ranking", blessed=False)
    again.models = {"retrieval": tonight.models["retrieval"], "ranking": ranking}
    again.blessings = {"retrieval": tonight.blessings["retrieval"], "ranking": history.blessings[-1]}
    why = "this run's ranking was not blessed"
    assert pair_of(history, again) == Pair(tonight.models, tonight.blessings, tonight.graph.id, why)


def test_behind_a_withdrawn_model_of_a_graph_is_the_one_before_it(history: History, night) -> None:
    earlier = Night(history, night(1))
    withdraw(history, history.train(earlier.graph, node="Trainer.ranking"))
    pair = pair_of(history, Night(history, night(2), ranking=False))
    assert pair.models == earlier.models
    assert "was not taken: withdrawn on 2030-01-02: too bad" in pair.why


def test_a_verdict_from_the_cache_is_the_last_one(history: History, night) -> None:
    model = history.train(night(1))
    blessed = history.put(history.blessings.pop())
    history.blessings.append(blessed)
    history.execute("Evaluator.ranking", [model], {"blessing": blessed})
    refused = history.put(standard_artifacts.ModelBlessing())
    refused.set_int_custom_property("blessed", 0)
    refused.set_int_custom_property("current_model_id", model.id)
    history.blessings.append(refused)
    history.execute("Evaluator.ranking", [model], {"blessing": refused})
    candidate = history.train(night(2), blessed=None)
    assert history.champion(candidate).model is None
    # The gates are what they were at first, and so is the verdict.
    history.execute("Evaluator.ranking", [model], {"blessing": blessed})
    assert history.champion(candidate).model is model


def test_training_starts_from_the_same_model_though_that_one_is_of_later_data(history: History, night) -> None:
    graph = history.transform(night(1))
    later = history.train(night(2))
    assert history.base(graph).model is later
    # The first data are there again, and from the cache; so is, after that, the model that was trained on them.
    history.train(graph, start=later)
    assert history.base(graph).model is later


def test_rows_that_several_data_have_count_once(history: History) -> None:
    data = history.data({"train": [1, 2], "test": [3]})
    leaky = history.train(history.data({"train": [1, 2], "test": [3]}), start=history.train(data))
    candidate = history.train(history.data({"train": [3], "test": [1, 2, 4]}), blessed=None)
    assert f"model {leaky.id} was fitted to 2 of this run's 3 test rows" in history.champion(candidate).why


def test_both_parts_may_be_one_model(history: History, night) -> None:
    def joint(data: Artifact, blessed: bool) -> tuple[Artifact, Pair]:
        model = history.train(data, node="Trainer.joint", blessed=blessed)
        both, verdicts = (
            {part: [each] for part in ("retrieval", "ranking")} for each in (model, history.blessings[-1])
        )
        champions = Champions(history.store, history.models, history.blessings)
        return model, champions.pair_for_recommender(both, verdicts)

    first, own = joint(night(1), blessed=True)
    assert (own.models, own.why) == ({"retrieval": first, "ranking": first}, "")
    _, pair = joint(night(2), blessed=False)
    assert pair.models == {"retrieval": first, "ranking": first}


def test_the_resolver_hands_on_the_pair_with_its_own_graph(history: History, night) -> None:
    earlier = Night(history, night(1))
    tonight = Night(history, night(2), ranking=False)
    graphs = [earlier.graph, tonight.graph]
    everything = {MODEL: history.models, MODEL_BLESSING: history.blessings, GRAPHS: graphs}
    nothing: dict[str, list[Artifact]] = {key: [] for key in everything}
    parts = PartsStrategy(["retrieval", "ranking"])

    def inputs(night: Night, more: list[Night]) -> dict[str, list[Artifact]]:
        nights = [night, *more]
        found = {DATA: [each.graph for each in nights]}
        for part in ("retrieval", "ranking"):
            found[f"{part}_model"] = [each.models[part] for each in nights]
            found[f"{part}_blessing"] = [each.blessings[part] for each in nights]
        return found

    expected = {**inputs(earlier, []), **nothing}
    assert parts.resolve_artifacts(history.store, {**inputs(tonight, []), **everything}) == expected
    # Where a runner hands over the whole history, the latest are those of the run.
    assert parts.resolve_artifacts(history.store, {**inputs(tonight, [earlier]), **everything}) == expected
    good = Night(history, night(3))
    assert parts.resolve_artifacts(history.store, {**inputs(good, []), **everything}) == {**inputs(good, []), **nothing}
