"""Resolvers that choose the spans a node reads: the latest ones, or the one before the current span.

Of a span that was ingested more than once, they take the latest artifact.
"""

import ml_metadata as mlmd
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.types import standard_artifacts

from components.ingestion.movielens_example_gen import SETTINGS
from components.metadata.lineage import Lineage

CURRENT = "current"
EXAMPLES = "examples"
STATISTICS = "statistics"


class LatestSpansStrategy(ResolverStrategy):
    """The latest spans up to the current one, newest first.

    TFX's own SpanRangeStrategy would return a span twice if it was ingested twice. It would also mix examples that were
    split with different settings, so that ratings in one span's test split could be in another's train split.

    Inputs: `current`, the examples of this run; `examples`, all examples in the metadata store.
    """

    def __init__(self, spans: int | None = None):
        """Takes the number of spans to return; None for all spans."""
        self._spans = spans

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Returns the chosen spans as `examples`, and `current` unchanged."""
        current = _latest(input_dict[CURRENT])
        settings = current.get_string_custom_property(SETTINGS)
        same_settings = [each for each in input_dict[EXAMPLES] if each.get_string_custom_property(SETTINGS) == settings]
        earlier = _earlier_spans(store, current, same_settings)
        first = 0 if self._spans is None else max(0, current.span - self._spans + 1)
        span_range = tfx.proto.RangeConfig(
            static_range=tfx.proto.StaticRange(start_span_number=first, end_span_number=current.span)
        )
        window = {EXAMPLES: [*earlier, current]}
        resolved = tfx.dsl.experimental.SpanRangeStrategy(span_range).resolve_artifacts(store, window)
        return {CURRENT: [current], **(resolved or {})}


class PreviousSpanStrategy(ResolverStrategy):
    """The statistics of the span before the current one; if there is none, the current statistics.

    DistributionValidator always needs baseline statistics, so the first span is compared with itself.

    Inputs: `current`, the statistics of this run; `statistics`, all statistics in the metadata store.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Returns the chosen statistics as `statistics`, and `current` unchanged."""
        current = _latest(input_dict[CURRENT])
        *_, previous = [current, *_earlier_spans(store, current, input_dict[STATISTICS])]
        return {CURRENT: [current], STATISTICS: [previous]}


def _latest(artifacts: list[types.Artifact]) -> types.Artifact:
    """This run's artifact; some runners hand over all that its node ever made, of which it is the latest."""
    return max(artifacts, key=lambda artifact: artifact.id)


def _earlier_spans(
    store: mlmd.MetadataStore, current: types.Artifact, artifacts: list[types.Artifact]
) -> list[types.Artifact]:
    """Returns the artifacts of spans before the current one, earliest first; of a span ingested again, the latest."""
    lineage = Lineage(store)
    producer = lineage.producer(current.id)
    newest = {
        artifact.span: artifact
        for artifact in sorted(artifacts, key=lambda artifact: artifact.id)
        if artifact.span < current.span and lineage.producer(artifact.id) == producer
    }
    return [newest[span] for span in sorted(newest)]


def latest_spans(example_gen: BaseNode, spans: int | None) -> Resolver:
    """Makes a node whose output `examples` is the latest `spans` spans (None for all) up to this run's."""
    channels = {CURRENT: example_gen.outputs[EXAMPLES], EXAMPLES: tfx.dsl.Channel(type=standard_artifacts.Examples)}
    name, config = ("Resolver.all_spans", {}) if spans is None else ("Resolver.spans", {"spans": spans})
    return Resolver(strategy_class=LatestSpansStrategy, config=config, **channels).with_id(name)


def previous_span(statistics_gen: BaseNode) -> Resolver:
    """Makes a node whose output `statistics` is of the span before this run's; of the first span, its own."""
    all_statistics = tfx.dsl.Channel(type=standard_artifacts.ExampleStatistics)
    channels = {CURRENT: statistics_gen.outputs[STATISTICS], STATISTICS: all_statistics}
    return Resolver(strategy_class=PreviousSpanStrategy, **channels).with_id("Resolver.previous_span")
