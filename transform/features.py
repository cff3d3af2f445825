"""The list of all features of a row: each one's name, type, role, preprocessing and allowed values.

Preprocessing, the towers, the serving signatures and the schema are derived from this list. To add a feature, add a
line here and run `python -m transform.schema`, which rewrites the schema.

A raw feature may be missing from any row (it then parses as an empty list); an optional one may be missing from the
whole data set. Transformed features are dense. Indices into a vocabulary are 1, 2, ... in order of falling frequency; 0
stands for missing and padding, and the index after the last word for words that are not in the vocabulary.
"""

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """What a feature describes."""

    USER = "user"
    CONTEXT = "context"
    MOVIE = "movie"
    HISTORY = "history"
    ORDER = "order"
    LABEL = "label"
    EVALUATION = "evaluation"


class Kind(Enum):
    """How preprocessing turns a feature into numbers, and what it gives for a missing or an unknown value."""

    CATEGORY = "category"  # vocabulary index, int64 []; missing: 0, unknown: the last index
    BUCKETS = "buckets"  # number of codes up to the value, at least 1, int64 []; missing: 0
    HOUR = "hour"  # hour of a time in seconds, UTC: 1 to 24, int64 []; missing: 0
    WEEKDAY = "weekday"  # weekday of a time in seconds, UTC: 1 (Monday) to 7, int64 []; missing: 0
    TOKENS = "tokens"  # vocabulary indices of words, int64 [width]; padded with 0
    MULTI_HOT = "multi_hot"  # int64 [width + 2] of 0 and 1, by vocabulary index; missing: all 0
    NORMALIZED = "normalized"  # z-score, cut to the feature's bound, float32 []; missing: 0, the mean
    FREQUENCY = "frequency"  # number of train ratings with the value, float32 []; missing, unknown: 0
    NUMBER = "number"  # the value itself, float32 []; missing: 0
    MOVIES = "movies"  # indices of the movie_id vocabulary, newest first, int64 [history_length]; unknown: left out
    RATINGS = "ratings"  # the ratings of MOVIES, at the same positions, float32 [history_length]; missing: 0
    TIMES = "times"  # when MOVIES were rated, as SECONDS, at the same positions, int64 [history_length]; missing: 0
    SECONDS = "seconds"  # seconds since the year 2000, which fit 32 bits until 2068, int64 []; missing: 0
    COUNT = "count"  # the number itself, int64 []; missing: 0


_SUFFIXES = {
    Kind.HOUR: "_hour",
    Kind.WEEKDAY: "_weekday",
    Kind.NORMALIZED: "_normalized",
    Kind.FREQUENCY: "_frequency",
    Kind.SECONDS: "_seconds",
}

# Kinds whose values are indices.
INDICES = (Kind.CATEGORY, Kind.BUCKETS, Kind.HOUR, Kind.WEEKDAY, Kind.TOKENS, Kind.MULTI_HOT)
# Kinds whose indices come from a vocabulary, and may therefore mean other words in other data.
VOCABULARY_INDICES = (Kind.CATEGORY, Kind.TOKENS, Kind.MULTI_HOT)


@dataclass(frozen=True)
class Feature:
    """A raw feature.

    Attributes:
      name: its key in a raw tf.Example.
      dtype: `int64`, `float32` or `string`.
      role: what it describes.
      kinds: the ways in which preprocessing transforms it; empty for a feature that no model reads.
      optional: whether it may be missing from rows, or from the whole data set.
      values: the allowed texts; empty for any.
      codes: the allowed integers, in rising order; empty for any. For BUCKETS, each code but the first is the lower
        bound of a bucket; the first bucket holds all values below the second code.
      range: the smallest and the largest allowed number, if there are no codes; None for no bound.
      max_values: largest number of values in a row; None for any number.
      skew: largest allowed difference between the distributions of train and eval and, except for user features, of one
        span and the next: for texts and codes the largest difference of a share, for numbers the Jensen-Shannon
        divergence. None for any difference.
      width: for TOKENS the largest number of words kept, for MULTI_HOT the largest size of the vocabulary.
      prefix: for a CATEGORY of strings, how many leading characters count; None for all.
      bound: for NORMALIZED the largest z-score; what lies farther away is taken for the end of what was learnt.
    """

    name: str
    dtype: str
    role: Role
    kinds: tuple[Kind, ...] = ()
    optional: bool = False
    values: tuple[str, ...] = ()
    codes: tuple[int, ...] = ()
    range: tuple[float | None, float | None] = (None, None)
    max_values: int | None = 1
    skew: float | None = None
    width: int = 0
    prefix: int | None = None
    bound: float = 3.0


@dataclass(frozen=True)
class Column:
    """A transformed feature: a raw feature, preprocessed in one of its kinds.

    Attributes:
      feature: the raw feature.
      kind: how it was preprocessed.
    """

    feature: Feature
    kind: Kind

    @property
    def name(self) -> str:
        """Its key among transformed features."""
        return transformed_name(self.feature.name, self.kind)


GENDERS = ("M", "F")
# A code is the lowest age of its bracket; 1 stands for under 18.
AGE_CODES = (1, 18, 25, 35, 45, 50, 56)
OCCUPATIONS = 21
GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
LOWEST_RATING, HIGHEST_RATING = 1, 5
EARLIEST_YEAR, LATEST_YEAR = 1880, 2100

_STARS = (LOWEST_RATING, HIGHEST_RATING)

_MOMENT = (Kind.NORMALIZED, Kind.HOUR, Kind.WEEKDAY, Kind.SECONDS)

FEATURES = (
    Feature("user_id", "int64", Role.USER, (Kind.CATEGORY,), range=(1, None)),
    Feature("gender", "string", Role.USER, (Kind.CATEGORY,), values=GENDERS, skew=0.1),
    Feature("age", "int64", Role.USER, (Kind.BUCKETS, Kind.NORMALIZED), codes=AGE_CODES, skew=0.1),
    Feature("occupation", "int64", Role.USER, (Kind.CATEGORY,), codes=tuple(range(OCCUPATIONS)), skew=0.1),
    Feature("zip_code", "string", Role.USER, (Kind.CATEGORY,), prefix=3),
    # Whoever asks, asks later than all of the data; with the bound, that is no more unusual than a late rating.
    Feature("timestamp", "int64", Role.CONTEXT, _MOMENT, range=(1, None), bound=1.0),
    Feature("movie_id", "int64", Role.MOVIE, (Kind.CATEGORY, Kind.FREQUENCY), range=(1, None)),
    Feature("title", "string", Role.MOVIE, (Kind.TOKENS,), width=8),
    Feature("release_year", "int64", Role.MOVIE, (Kind.NORMALIZED,), range=(EARLIEST_YEAR, LATEST_YEAR), skew=0.05),
    Feature("genres", "string", Role.MOVIE, (Kind.MULTI_HOT,), values=GENRES, max_values=18, width=18, skew=0.1),
    Feature("director", "string", Role.MOVIE, (Kind.CATEGORY,), optional=True),
    Feature("star", "string", Role.MOVIE, (Kind.CATEGORY,), optional=True),
    Feature("history_movie_ids", "int64", Role.HISTORY, (Kind.MOVIES,), True, range=(1, None), max_values=None),
    Feature("history_ratings", "float32", Role.HISTORY, (Kind.RATINGS,), True, range=_STARS, max_values=None),
    Feature("history_timestamps", "int64", Role.HISTORY, (Kind.TIMES,), True, range=(1, None), max_values=None),
    # How many ratings the user had given before; ratings of the same second have no other order.
    Feature("place", "int64", Role.ORDER, (Kind.COUNT,), True, range=(0, None)),
    Feature("rating", "float32", Role.LABEL, (Kind.NUMBER,), range=_STARS, skew=0.05),
    Feature("seen_movie_ids", "int64", Role.EVALUATION, (), True, range=(1, None), max_values=None),
)

LABEL = "rating"
MOVIE_ID = "movie_id"
USER_ID = "user_id"
TIMESTAMP = "timestamp"
HISTORY_MOVIES = "history_movie_ids"
HISTORY_RATINGS = "history_ratings"
HISTORY_TIMES = "history_timestamps"
PLACE = "place"
SEEN_MOVIES = "seen_movie_ids"


def columns(*roles: Role, among: Container[str] | None = None) -> tuple[Column, ...]:
    """Returns the transformed features of some roles, in order of declaration.

    Args:
      roles: the roles; all if none is given.
      among: names of the transformed features that exist, to which the result is limited; None for no limit.
    """
    all_columns = (
        Column(feature, kind) for feature in FEATURES if not roles or feature.role in roles for kind in feature.kinds
    )
    return tuple(column for column in all_columns if among is None or column.name in among)


def is_read(name: str) -> bool:
    """Whether models read a transformed feature; they do not read the rating, nor where a row stands among others."""
    return all(name != column.name for column in columns(Role.LABEL, Role.ORDER))


def transformed_name(name: str, kind: Kind | None = None) -> str:
    """Returns a feature's name after preprocessing; some kinds add a suffix, as a feature may have several kinds."""
    return f"{name}{_SUFFIXES.get(kind, '') if kind else ''}_xf"


def vocabulary_name(name: str) -> str:
    """Returns the name of a feature's vocabulary in the Transform output."""
    return f"{name}_vocabulary"
