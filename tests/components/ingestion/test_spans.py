"""Span folders are found by their numbers and versions; resolvers choose the artifacts of a window of spans."""

from pathlib import Path

import ml_metadata as mlmd
import pytest
from components.ingestion.span_resolvers import CURRENT, EXAMPLES, STATISTICS, LatestSpansStrategy, PreviousSpanStrategy
from ml_metadata.proto import metadata_store_pb2
from tfx.types import standard_artifacts

from components.data.raw_files import DataError
from components.data.sample import generate_sample
from components.ingestion.spans import Source, span_folders
from components.ingestion.splits import SplitConfig


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("span-10", "span-2", "span-1", "notes"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_folders_are_in_the_order_of_their_numbers(base):
    assert [(number, folder.name) for number, folder in span_folders(base, versions=False).items()] == [
        (1, "span-1"),
        (2, "span-2"),
        (10, "span-10"),
    ]


@pytest.mark.parametrize("name", ["span-01", "span-x", "span--1"])
def test_folder_names_without_a_plain_number_are_refused(base, name):
    (base / name).mkdir()
    with pytest.raises(DataError, match=rf"^{name}: the name should be span- and a whole number"):
        span_folders(base, versions=False)


def test_a_number_that_metadata_cannot_hold_is_refused(base):
    (base / f"span-{2**63}").mkdir()
    with pytest.raises(DataError, match=r"span-9223372036854775808: the number should be at most 2147483647"):
        span_folders(base, versions=False)


def test_a_folder_without_spans_is_refused(tmp_path):
    with pytest.raises(DataError, match="should hold the folders span-1, span-2 and so on; there is none"):
        span_folders(tmp_path, versions=False)


def test_a_span_also_reads_the_earlier_spans(base):
    source = Source.of(base, "span-2", SplitConfig(), 0.0)
    assert (source.folder, source.earlier) == (base / "span-2", (base / "span-1",))
    assert Source.of(base, "", SplitConfig(), 0.0) == Source(base, base, (), SplitConfig(), 0.0)
    with pytest.raises(DataError, match="no such folder"):
        Source.of(base, "span-3", SplitConfig(), 0.0)


def test_only_the_latest_version_of_a_span_is_read(base):
    for name in ("span-1/version-1", "span-1/version-12", "span-2/version-9", "span-10/version-1"):
        (base / name).mkdir()
    folders = span_folders(base, versions=True)
    assert [str(folder.relative_to(base)) for folder in folders.values()] == [
        *("span-1/version-12", "span-2/version-9", "span-10/version-1")
    ]
    source = Source.of(base, "span-2/version-9", SplitConfig(), 0.0)
    assert (source.folder, source.earlier) == (folders[2], (folders[1],))


def test_a_span_without_versions_is_refused(base):
    with pytest.raises(DataError, match=r"^span-1: should hold the folders version-1, version-2"):
        span_folders(base, versions=True)


def test_an_error_in_an_earlier_span_names_that_span(tmp_path):
    for day in (1, 2):
        generate_sample(tmp_path / f"span-{day}", users=5, movies=10, ratings=40)
    (tmp_path / "span-1" / "ratings.dat").write_text("1::1::7::978300760\n")
    source = Source.of(tmp_path, "span-2", SplitConfig(), 0.0)
    source.read()
    with pytest.raises(DataError, match=r"^span-1: ratings\.dat:1: .*'7'"):
        source.read_earlier()


def examples(number, span, settings="{}", component="MovieLensExampleGen"):
    artifact = standard_artifacts.Examples()
    artifact.uri, artifact.id = f"artifacts/{component}/examples/{number}", number
    artifact.span = span
    # SpanRangeStrategy of TFX reads the span from this custom property.
    artifact.set_int_custom_property("span", span)
    artifact.set_string_custom_property("settings", settings)
    return artifact


def recorded(artifacts):
    """A metadata store that knows by which component artifacts were made; a URI ends with COMPONENT/OUTPUT/ID."""
    config = metadata_store_pb2.ConnectionConfig()
    config.fake_database.SetInParent()
    store = mlmd.MetadataStore(config)
    kind = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="Any"))
    made = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Any"))
    node = store.put_context_type(metadata_store_pb2.ContextType(name="node"))
    for _ in range(max(artifact.id for artifact in artifacts)):
        store.put_artifacts([metadata_store_pb2.Artifact(type_id=kind)])
    for artifact in artifacts:
        component, output, _ = artifact.uri.split("/")[-3:]
        name = f"nightly.{component}"
        known = store.get_context_by_type_and_name("node", name)
        context = known.id if known else store.put_contexts([metadata_store_pb2.Context(type_id=node, name=name)])[0]
        (execution,) = store.put_executions([metadata_store_pb2.Execution(type_id=made)])
        association = metadata_store_pb2.Association(execution_id=execution, context_id=context)
        store.put_attributions_and_associations([], [association])
        event = metadata_store_pb2.Event(type=metadata_store_pb2.Event.OUTPUT, artifact_id=artifact.id)
        event.execution_id = execution
        event.path.steps.add().key = output
        store.put_events([event])
    return store


def resolve(current, others, spans, also_current=()):
    inputs = {CURRENT: [*also_current, current], EXAMPLES: [*others, current]}
    resolved = LatestSpansStrategy(spans).resolve_artifacts(recorded(inputs[EXAMPLES]), inputs)
    assert [artifact.id for artifact in resolved[CURRENT]] == [current.id]
    return [artifact.id for artifact in resolved[EXAMPLES]]


def test_the_window_holds_the_latest_spans_newest_first():
    earlier = [examples(1, span=1), examples(2, span=2), examples(3, span=4)]
    assert resolve(examples(4, span=5), earlier, spans=1) == [4]
    assert resolve(examples(4, span=5), earlier, spans=2) == [4, 3]
    # There is no span 3, so the window of spans 3 to 5 holds only two.
    assert resolve(examples(4, span=5), earlier, spans=3) == [4, 3]
    assert resolve(examples(4, span=5), earlier, spans=9) == [4, 3, 2, 1]
    assert resolve(examples(4, span=5), earlier, spans=None) == [4, 3, 2, 1]


def test_a_span_that_was_ingested_twice_is_in_the_window_once_with_its_latest_artifact():
    earlier = [examples(1, span=1), examples(2, span=2), examples(3, span=1)]
    assert resolve(examples(4, span=2), earlier, spans=2) == [4, 3]


def test_a_run_on_an_earlier_span_does_not_see_later_spans():
    others = [examples(1, span=1), examples(3, span=3), examples(4, span=2, settings="{1}")]
    # The current artifact comes from the cache, so artifacts of other runs have higher ids.
    assert resolve(examples(2, span=2), others, spans=2) == [2, 1]


def test_examples_of_other_split_settings_or_of_another_component_are_left_out():
    others = [examples(1, span=1, settings="{1}"), examples(2, span=1, component="Transform")]
    assert resolve(examples(3, span=2), others, spans=2) == [3]


def test_it_does_not_matter_where_the_artifacts_of_a_span_lie():
    moved = examples(1, span=1)
    moved.uri = "gs://bucket/elsewhere/MovieLensExampleGen/examples/1"
    assert resolve(examples(2, span=2), [moved], spans=2) == [2, 1]


def test_of_all_examples_that_were_ever_ingested_the_latest_are_this_runs():
    earlier = [examples(1, span=1), examples(2, span=2)]
    assert resolve(examples(3, span=3), earlier, spans=2, also_current=earlier) == [3, 2]


def statistics(number, span, component="StatisticsGen"):
    artifact = standard_artifacts.ExampleStatistics()
    artifact.uri, artifact.id, artifact.span = f"artifacts/{component}/statistics/{number}", number, span
    return artifact


def resolve_previous(current, others):
    inputs = {CURRENT: [current], STATISTICS: [*others, current]}
    resolved = PreviousSpanStrategy().resolve_artifacts(recorded(inputs[STATISTICS]), inputs)
    assert [artifact.id for artifact in resolved[CURRENT]] == [current.id]
    return [artifact.id for artifact in resolved[STATISTICS]]


def test_the_previous_span_is_the_nearest_earlier_one_with_its_latest_artifact():
    others = [statistics(1, span=1), statistics(2, span=3), statistics(3, span=3), statistics(4, span=5)]
    assert resolve_previous(statistics(5, span=5), others) == [3]
    assert resolve_previous(statistics(5, span=3), others) == [1]
    # The first span has no earlier one, so its statistics are compared with themselves.
    assert resolve_previous(statistics(5, span=1), others) == [5]
    assert resolve_previous(statistics(5, span=2), [statistics(1, span=1, component="Another")]) == [5]
