"""Writes the curated schema for TensorFlow Data Validation from the list of features.

    python -m transform.schema

Environments say which rows have a feature: TRAINING (rated rows), MOVIES (rows of the catalogue, which have no user and
no rating) and SERVING (requests, which have no rating).
"""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from transform import features
from transform.features import Feature, Role

PATH = Path(__file__).with_name("schema.pbtxt")
TRAINING, MOVIES, SERVING = "TRAINING", "MOVIES", "SERVING"

_HEADER = (
    "# Written by `python -m transform.schema` from transform/features.py. No feature has a fixed shape: each may\n"
)
_HEADER += "# be missing from a request, and parses as a list.\n"

_TYPES = {"int64": schema_pb2.INT, "float32": schema_pb2.FLOAT, "string": schema_pb2.BYTES}

_ABSENT_FROM = {
    Role.MOVIE: (),
    Role.USER: (MOVIES,),
    Role.CONTEXT: (MOVIES,),
    Role.HISTORY: (MOVIES,),
    Role.ORDER: (MOVIES, SERVING),
    Role.LABEL: (MOVIES, SERVING),
    Role.EVALUATION: (MOVIES, SERVING),
}


def curated_schema() -> schema_pb2.Schema:
    """Makes the schema of all features."""
    return schema_pb2.Schema(
        feature=[_feature(feature) for feature in features.FEATURES], default_environment=[TRAINING, MOVIES, SERVING]
    )


def schema_text() -> str:
    """Formats the schema as the file in the repository."""
    return _HEADER + text_format.MessageToString(curated_schema(), use_short_repeated_primitives=True)


def _feature(feature: Feature) -> schema_pb2.Feature:
    result = schema_pb2.Feature(
        name=feature.name, type=_TYPES[feature.dtype], not_in_environment=_ABSENT_FROM[feature.role]
    )
    result.value_count.min = 1
    if feature.max_values:
        result.value_count.max = feature.max_values
    if not feature.optional:
        result.presence.min_fraction = 1.0
        result.presence.min_count = 1
    _set_domain(feature, result)
    if feature.skew is not None:
        # Drift between spans is not checked for user features, because each span has other people, who may differ.
        across_spans = [] if feature.role is Role.USER else [result.drift_comparator]
        for comparator in (result.skew_comparator, *across_spans):
            if feature.dtype == "string" or result.int_domain.is_categorical:
                comparator.infinity_norm.threshold = feature.skew
            else:
                comparator.jensen_shannon_divergence.threshold = feature.skew
    return result


def _set_domain(feature: Feature, result: schema_pb2.Feature) -> None:
    if feature.values:
        result.string_domain.value.extend(feature.values)
    low, high = (feature.codes[0], feature.codes[-1]) if feature.codes else feature.range
    bounds = {name: bound for name, bound in (("min", low), ("max", high)) if bound is not None}
    if bounds and feature.dtype == "int64":
        result.int_domain.CopyFrom(schema_pb2.IntDomain(**{name: int(bound) for name, bound in bounds.items()}))
        # Codes are categories, and few, so the statistics should count each value.
        result.int_domain.is_categorical = bool(feature.codes)
    elif bounds:
        result.float_domain.CopyFrom(schema_pb2.FloatDomain(**bounds))


if __name__ == "__main__":
    PATH.write_text(schema_text())
