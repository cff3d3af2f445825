"""TFX component that stops the pipeline if the data do not fit the schema, or if splits or spans differ too much.

ExampleValidator and DistributionValidator only record anomalies; they succeed all the same. This component also checks
what they cannot. It validates the catalogue, whose rows have no users and ratings, because ExampleValidator does not
support schema environments. And it checks codes such as those of age, because a schema can give the range of an integer
but not list its values (TFDV refuses a string domain on an integer).
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx import v1 as tfx
from tfx.components.distribution_validator.executor import DEFAULT_FILE_NAME
from tfx.components.statistics_gen.stats_artifact_utils import load_statistics
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from transform.features import FEATURES

SCHEMA_FILE = "schema.pbtxt"
# Differences between fewer rows than these are ignored, because they could be chance. With this many rows, a share
# deviates by 0.1, which the schema allows, once in 100,000 draws.
FEWEST_COMPARED_ROWS = 500

_MOVIES, _MOVIES_ENVIRONMENT = "movies", "MOVIES"
_MOST_LISTED = 50

_logger = logging.getLogger(__name__)

Statistics = Mapping[str, statistics_pb2.DatasetFeatureStatisticsList]
"""Statistics by name of the split."""


@dataclass(frozen=True)
class Anomaly:
    """A deviation of the data from the schema.

    Attributes:
      split: name of the split. For distributions, the two that were compared: `train_eval`, or `newest_previous` for
        the train ratings of the newest span and of the one before.
      feature: name of the feature; "all features" if the split as a whole is at fault.
      short: what is wrong, in a few words.
      long: the same, with values and bounds.
    """

    split: str
    feature: str
    short: str
    long: str

    def __str__(self) -> str:
        return f"{self.split}, {self.feature}: {self.short}. {self.long}"


class AnomalyError(ValueError):
    """Data that no model may be trained on; the message lists the first anomalies, one per line."""

    def __init__(self, anomalies: list[Anomaly]):
        self.anomalies = anomalies
        lines = [str(anomaly) for anomaly in anomalies[:_MOST_LISTED]]
        if len(anomalies) > _MOST_LISTED:
            lines.append(f"and {len(anomalies) - _MOST_LISTED} more")
        super().__init__("\n  ".join([f"the data should fit the schema; received {len(anomalies)} anomalies:", *lines]))

    def __reduce__(self) -> tuple[type, tuple[list[Anomaly]]]:
        return AnomalyError, (self.anomalies,)


@tfx.dsl.components.component
def DataGate(
    statistics: tfx.dsl.components.InputArtifact[standard_artifacts.ExampleStatistics],
    curated_schema: tfx.dsl.components.InputArtifact[standard_artifacts.Schema],
    anomalies: tfx.dsl.components.InputArtifact[standard_artifacts.ExampleAnomalies],
    drift: tfx.dsl.components.InputArtifact[list[standard_artifacts.ExampleAnomalies]],
    schema: tfx.dsl.components.OutputArtifact[standard_artifacts.Schema],
) -> None:
    """Fails if there is any anomaly; otherwise writes the schema, without the optional features that no row has.

    Args:
      statistics: statistics of train, eval and movies, computed with the schema; with spans also those of the newest
        one and of the one before.
      curated_schema: the schema that the data should fit.
      anomalies: anomalies that ExampleValidator found in train and eval.
      drift: anomalies that DistributionValidator found between train and eval, and between spans.
      schema: receives the schema of the features that the data have.

    Raises:
      AnomalyError: there are anomalies.
    """
    by_split = _by_split(statistics)
    full = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(curated_schema.uri))
    found = [
        *read_anomalies(anomalies, "Split"),
        *movie_anomalies(by_split[_MOVIES], full),
        *code_anomalies(by_split),
        *without_small_sample_drift([each for pairs in drift for each in read_anomalies(pairs, "SplitPair")], by_split),
    ]
    if found:
        raise AnomalyError(found)
    tfx.dsl.io.fileio.makedirs(schema.uri)
    io_utils.write_pbtxt_file(os.path.join(schema.uri, SCHEMA_FILE), without_absent_features(full, by_split))


def _by_split(statistics: standard_artifacts.ExampleStatistics) -> Statistics:
    splits = artifact_utils.decode_split_names(statistics.split_names)
    return {split: load_statistics(statistics, split).proto() for split in splits}


def read_anomalies(artifact: types.Artifact, prefix: str) -> list[Anomaly]:
    """Reads the anomalies that a validator recorded; none if the validator compared nothing.

    Args:
      artifact: an artifact of type ExampleAnomalies.
      prefix: the prefix of its split folders' names, `Split` or `SplitPair`.
    """
    found = []
    for split in artifact_utils.decode_split_names(artifact.split_names):
        content = io_utils.read_bytes_file(os.path.join(artifact.uri, f"{prefix}-{split}", DEFAULT_FILE_NAME))
        found += anomalies_of(anomalies_pb2.Anomalies.FromString(content), split)
    return found


def anomalies_of(anomalies: anomalies_pb2.Anomalies, split: str) -> list[Anomaly]:
    """Converts TFDV's anomalies of a split, sorted by feature; makes one Anomaly for each reason."""
    by_feature = {".".join(info.path.step) or key: info for key, info in anomalies.anomaly_info.items()}
    whole = {"all features": anomalies.dataset_anomaly_info}
    found = [
        Anomaly(split, feature, reason.short_description.rstrip("."), reason.description)
        for feature, info in (whole | dict(sorted(by_feature.items()))).items()
        for reason in info.reason
    ]
    if anomalies.data_missing:
        found.append(Anomaly(split, "all features", "No rows", "There should be at least one row"))
    return found


def movie_anomalies(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, schema: schema_pb2.Schema
) -> list[Anomaly]:
    """Validates the catalogue against the schema, in the environment MOVIES."""
    return anomalies_of(tfdv.validate_statistics(statistics, schema, environment=_MOVIES_ENVIRONMENT), _MOVIES)


def code_anomalies(statistics: Statistics) -> list[Anomaly]:
    """Finds values between a feature's lowest and highest code that are no codes; the schema finds those out of range.

    Raises:
      ValueError: the statistics do not count the values, because they were made without the schema.
    """
    found = []
    for split, datasets in statistics.items():
        for name, codes in ((feature.name, feature.codes) for feature in FEATURES if feature.codes):
            feature = _feature_statistics(datasets, name)
            if feature is None:
                continue
            if feature.WhichOneof("stats") != "string_stats":
                raise ValueError(f"statistics of {name} in {split} should count its values; received a range")
            unknown = {
                bucket.label: int(bucket.sample_count)
                for bucket in feature.string_stats.rank_histogram.buckets
                if codes[0] < int(bucket.label) < codes[-1] and int(bucket.label) not in codes
            }
            if unknown:
                rows = ", ".join(f"{label} ({count} rows)" for label, count in unknown.items())
                expected = ", ".join(map(str, codes))
                found.append(Anomaly(split, name, "Unexpected codes", f"Should be one of {expected}; received {rows}."))
    return found


def without_small_sample_drift(drift: list[Anomaly], statistics: Statistics) -> list[Anomaly]:
    """Drops the anomalies for which either side has fewer than FEWEST_COMPARED_ROWS rows, as they could be chance.

    Args:
      drift: anomalies found between two splits.
      statistics: statistics of the splits.
    """
    kept = []
    for anomaly in drift:
        pair = [statistics[split] for split in anomaly.split.split("_")]
        if min(datasets.datasets[0].num_examples for datasets in pair) < FEWEST_COMPARED_ROWS:
            _logger.warning(
                "Ignored, since with fewer than %d rows it may be chance: %s", FEWEST_COMPARED_ROWS, anomaly
            )
        else:
            kept.append(anomaly)
    return kept


def without_absent_features(schema: schema_pb2.Schema, statistics: Statistics) -> schema_pb2.Schema:
    """Copies a schema without the optional features that no row has.

    All splits in the statistics count, not only train, because train rows never have seen_movie_ids.
    """
    result = schema_pb2.Schema()
    result.CopyFrom(schema)
    del result.feature[:]
    result.feature.extend(
        feature
        for feature in schema.feature
        if feature.HasField("presence")
        or any(_feature_statistics(datasets, feature.name) is not None for datasets in statistics.values())
    )
    return result


def _feature_statistics(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, name: str
) -> statistics_pb2.FeatureNameStatistics | None:
    """Returns the statistics of a feature; None if no row has it."""
    for feature in statistics.datasets[0].features:
        if list(feature.path.step) == [name]:
            return feature if getattr(feature, feature.WhichOneof("stats")).common_stats.num_non_missing else None
    return None
