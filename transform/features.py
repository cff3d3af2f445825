"""Every feature of a row, once: its name, type, role and how it becomes a number.

A raw feature may be missing from any row (it then parses as an empty list). Transformed features carry the suffix
`_xf` and are dense. Indices into a vocabulary are 1, 2, ... in order of falling frequency; 0 stands for missing
and padding, and the index after the last word for words that the vocabulary does not know.
"""

from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """What a feature describes."""

    USER = "user"
    CONTEXT = "context"
    MOVIE = "movie"
    HISTORY = "history"
    LABEL = "label"
    EVALUATION = "evaluation"


class Kind(Enum):
    """How preprocessing turns a feature into numbers."""

    CATEGORY = "category"  # one vocabulary index, int64 []
    TOKENS = "tokens"  # vocabulary indices of words, int64 [width], padded with 0
    MULTI_HOT = "multi_hot"  # int64 [width + 2] of 0 and 1, by vocabulary index
    NORMALIZED = "normalized"  # z-score, float32 []; 0 where missing
    NUMBER = "number"  # as it is, float32 []; 0 where missing
    MOVIES = "movies"  # indices of the movie_id vocabulary, newest first, int64 [history_length]
    RATINGS = "ratings"  # beside MOVIES, float32 [history_length]
    NONE = "none"  # not a model input


@dataclass(frozen=True)
class Feature:
    """A raw feature.

    Attributes:
      name: its key in a raw tf.Example.
      dtype: `int64`, `float32` or `string`.
      role: what it describes.
      kind: how it is preprocessed.
      width: for TOKENS the most words kept, for MULTI_HOT the largest vocabulary.
      also_normalized: whether a CATEGORY is given as a z-score as well.
      prefix: for a CATEGORY of strings, how many leading characters count; None for all.
    """

    name: str
    dtype: str
    role: Role
    kind: Kind
    width: int = 0
    also_normalized: bool = False
    prefix: int | None = None


FEATURES = (
    Feature("user_id", "int64", Role.USER, Kind.CATEGORY),
    Feature("gender", "string", Role.USER, Kind.CATEGORY),
    Feature("age", "int64", Role.USER, Kind.CATEGORY, also_normalized=True),
    Feature("occupation", "int64", Role.USER, Kind.CATEGORY),
    Feature("zip_code", "string", Role.USER, Kind.CATEGORY, prefix=3),
    Feature("timestamp", "int64", Role.CONTEXT, Kind.NORMALIZED),
    Feature("movie_id", "int64", Role.MOVIE, Kind.CATEGORY),
    Feature("title", "string", Role.MOVIE, Kind.TOKENS, width=8),
    Feature("release_year", "int64", Role.MOVIE, Kind.NORMALIZED),
    Feature("genres", "string", Role.MOVIE, Kind.MULTI_HOT, width=18),
    Feature("director", "string", Role.MOVIE, Kind.CATEGORY),
    Feature("star", "string", Role.MOVIE, Kind.CATEGORY),
    Feature("history_movie_ids", "int64", Role.HISTORY, Kind.MOVIES),
    Feature("history_ratings", "float32", Role.HISTORY, Kind.RATINGS),
    Feature("rating", "float32", Role.LABEL, Kind.NUMBER),
    Feature("seen_movie_ids", "int64", Role.EVALUATION, Kind.NONE),
)

LABEL = "rating"
MOVIE_ID = "movie_id"
USER_ID = "user_id"
HISTORY_MOVIES = "history_movie_ids"
HISTORY_RATINGS = "history_ratings"
SEEN_MOVIES = "seen_movie_ids"


def transformed_name(name: str) -> str:
    """The name of a feature after preprocessing."""
    return f"{name}_xf"


def normalized_name(name: str) -> str:
    """The name of the z-score that stands beside a category."""
    return f"{name}_normalized_xf"


def transformed_names(*roles: Role) -> list[str]:
    """The names of all that preprocessing makes of the features of some roles."""
    features = of_role(*roles)
    names = [transformed_name(feature.name) for feature in features if feature.kind is not Kind.NONE]
    return names + [normalized_name(feature.name) for feature in features if feature.also_normalized]


def vocabulary_name(name: str) -> str:
    """The name of a feature's vocabulary in the Transform output."""
    return f"{name}_vocabulary"


def of_role(*roles: Role) -> tuple[Feature, ...]:
    """The features of some roles, in order of declaration."""
    return tuple(feature for feature in FEATURES if feature.role in roles)


def of_kind(*kinds: Kind) -> tuple[Feature, ...]:
    """The features of some kinds, in order of declaration."""
    return tuple(feature for feature in FEATURES if feature.kind in kinds)
