"""Every feature of a row, once: its name, type, role, how it becomes numbers, and what values it may take.

Preprocessing, the towers, the serving signatures and the schema follow from this list: a new feature is one line here,
and `python -m transform.schema`, which writes the schema anew.

A raw feature may be missing from any row (it then parses as an empty list), and an optional one from the data as a
whole. Transformed features are dense. Indices into a vocabulary are 1, 2, ... in order of falling frequency; 0 stands
for missing and padding, and the index after the last word for words that the vocabulary does not know.
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
    LABEL = "label"
    EVALUATION = "evaluation"


class Kind(Enum):
    """How preprocessing turns a feature into numbers, and what it gives for a missing or an unknown value."""

    CATEGORY = "category"  # vocabulary index, int64 []; missing: 0, unknown: the last index
    BUCKETS = "buckets"  # number of codes up to the value, 1 at least, int64 []; missing: 0
    HOUR = "hour"  # of a time in seconds, UTC: 1 to 24, int64 []; missing: 0
    WEEKDAY = "weekday"  # of a time in seconds, UTC: 1 (Monday) to 7, int64 []; missing: 0
    TOKENS = "tokens"  # vocabulary indices of words, int64 [width]; padded with 0
    MULTI_HOT = "multi_hot"  # int64 [width + 2] of 0 and 1, by vocabulary index; missing: all 0
    NORMALIZED = "normalized"  # z-score, float32 []; missing: 0, the mean
    FREQUENCY = "frequency"  # number of train ratings with the value, float32 []; missing, unknown: 0
    NUMBER = "number"  # as it is, float32 []; missing: 0
    MOVIES = "movies"  # indices of the movie_id vocabulary, newest first, int64 [history_length]; unknown: left out
    RATINGS = "ratings"  # beside MOVIES, float32 [history_length]; missing: 0


_SUFFIXES = {
    Kind.HOUR: "_hour",
    Kind.WEEKDAY: "_weekday",
    Kind.NORMALIZED: "_normalized",
    Kind.FREQUENCY: "_frequency",
}

# Kinds that are an index, or several.
INDICES = (Kind.CATEGORY, Kind.BUCKETS, Kind.HOUR, Kind.WEEKDAY, Kind.TOKENS, Kind.MULTI_HOT)
# Those whose indices are a vocabulary's, and may be others' in other data.
VOCABULARY_INDICES = (Kind.CATEGORY, Kind.TOKENS, Kind.MULTI_HOT)


@dataclass(frozen=True)
class Feature:
    """A raw feature.

    Attributes:
      name: its key in a raw tf.Example.
      dtype: `int64`, `float32` or `string`.
      role: what it describes.
      kinds: what preprocessing makes of it; nothing for a feature that no model reads.
      optional: whether rows, or all the data, may do without it.
      values: the texts that are allowed; none for any.
      codes: the integers that are allowed, in rising order; none for any. For BUCKETS, those after the first begin the
        second bucket and those after it.
      range: the smallest and the largest number allowed, where there are no codes; None for no bound.
      max_values: most values in a row; None for any number.
      skew: largest difference allowed between the distributions of train and eval, and, but for users, of one span and
        the next: for texts and codes the largest difference of a share, for numbers the Jensen-Shannon divergence. None
        for any.
      width: for TOKENS the most words kept, for MULTI_HOT the largest vocabulary.
      prefix: for a CATEGORY of strings, how many leading characters count; None for all.
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


@dataclass(frozen=True)
class Column:
    """A transformed feature: one kind of a raw one.

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
# The first year of a bracket, and 1 for under 18.
AGE_CODES = (1, 18, 25, 35, 45, 50, 56)
OCCUPATIONS = 21
GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
LOWEST_RATING, HIGHEST_RATING = 1, 5

_STARS = (LOWEST_RATING, HIGHEST_RATING)

FEATURES = (
    Feature("user_id", "int64", Role.USER, (Kind.CATEGORY,), range=(1, None)),
    Feature("gender", "string", Role.USER, (Kind.CATEGORY,), values=GENDERS, skew=0.1),
    Feature("age", "int64", Role.USER, (Kind.BUCKETS, Kind.NORMALIZED), codes=AGE_CODES, skew=0.1),
    Feature("occupation", "int64", Role.USER, (Kind.CATEGORY,), codes=tuple(range(OCCUPATIONS)), skew=0.1),
    Feature("zip_code", "string", Role.USER, (Kind.CATEGORY,), prefix=3),
    Feature("timestamp", "int64", Role.CONTEXT, (Kind.NORMALIZED, Kind.HOUR, Kind.WEEKDAY), range=(1, None)),
    Feature("movie_id", "int64", Role.MOVIE, (Kind.CATEGORY, Kind.FREQUENCY), range=(1, None)),
    Feature("title", "string", Role.MOVIE, (Kind.TOKENS,), width=8),
    Feature("release_year", "int64", Role.MOVIE, (Kind.NORMALIZED,), range=(1880, 2100), skew=0.05),
    Feature("genres", "string", Role.MOVIE, (Kind.MULTI_HOT,), values=GENRES, max_values=18, width=18, skew=0.1),
    Feature("director", "string", Role.MOVIE, (Kind.CATEGORY,), optional=True),
    Feature("star", "string", Role.MOVIE, (Kind.CATEGORY,), optional=True),
    Feature("history_movie_ids", "int64", Role.HISTORY, (Kind.MOVIES,), True, range=(1, None), max_values=None),
    Feature("history_ratings", "float32", Role.HISTORY, (Kind.RATINGS,), True, range=_STARS, max_values=None),
    Feature("rating", "float32", Role.LABEL, (Kind.NUMBER,), range=_STARS, skew=0.05),
    Feature("seen_movie_ids", "int64", Role.EVALUATION, (), True, range=(1, None), max_values=None),
)

LABEL = "rating"
MOVIE_ID = "movie_id"
USER_ID = "user_id"
HISTORY_MOVIES = "history_movie_ids"
HISTORY_RATINGS = "history_ratings"
SEEN_MOVIES = "seen_movie_ids"


def columns(*roles: Role, among: Container[str] | None = None) -> tuple[Column, ...]:
    """What preprocessing makes of the features of some roles, in order of declaration.

    Args:
      roles: the roles; none for all.
      among: names of the transformed features that there are; None for all.
    """
    every = (
        Column(feature, kind) for feature in FEATURES if not roles or feature.role in roles for kind in feature.kinds
    )
    return tuple(column for column in every if among is None or column.name in among)


def transformed_name(name: str, kind: Kind | None = None) -> str:
    """The name of a feature after preprocessing; the kind tells apart what else is made of it."""
    return f"{name}{_SUFFIXES.get(kind, '') if kind else ''}_xf"


def vocabulary_name(name: str) -> str:
    """The name of a feature's vocabulary in the Transform output."""
    return f"{name}_vocabulary"
