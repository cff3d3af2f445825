"""Summary statistics of a data set."""

from dataclasses import dataclass
from datetime import UTC, datetime

from components.data.raw_files import MovieLens
from transform.features import HIGHEST_RATING, LOWEST_RATING


@dataclass(frozen=True)
class CreditsSummary:
    """How much credits.csv covers.

    Attributes:
      movies_with_director, movies_with_star: number of movies.
      ratings_with_director, ratings_with_star: share of the ratings, 0 to 1.
    """

    movies_with_director: int
    movies_with_star: int
    ratings_with_director: float
    ratings_with_star: float


@dataclass(frozen=True)
class Summary:
    """Counts of a data set.

    Attributes:
      users, movies, ratings: number of rows in each file.
      rated_movies: movies with at least one rating.
      first, last: time of the earliest and the latest rating, UTC.
      histogram: number of ratings by value, 1 to 5.
      density: share of all (user, movie) pairs that are rated, 0 to 1.
      credits: what credits.csv covers; None if there is no such file.
    """

    users: int
    movies: int
    ratings: int
    rated_movies: int
    first: datetime
    last: datetime
    histogram: dict[int, int]
    density: float
    credits: CreditsSummary | None


def summarize(data: MovieLens) -> Summary:
    """Computes the statistics of a data set that `read_movielens` returned."""
    ratings = data.ratings
    counts = ratings["rating"].value_counts()
    return Summary(
        users=len(data.users),
        movies=len(data.movies),
        ratings=len(ratings),
        rated_movies=int(ratings["movie_id"].nunique()),
        first=datetime.fromtimestamp(int(ratings["timestamp"].min()), UTC),
        last=datetime.fromtimestamp(int(ratings["timestamp"].max()), UTC),
        histogram={value: int(counts.get(value, 0)) for value in range(LOWEST_RATING, HIGHEST_RATING + 1)},
        density=len(ratings) / (len(data.users) * len(data.movies)),
        credits=_summarize_credits(data),
    )


def _summarize_credits(data: MovieLens) -> CreditsSummary | None:
    if data.credits is None:
        return None
    known = {name: data.credits.loc[data.credits[name].notna(), "movie_id"] for name in ("director", "star")}
    covered = {name: float(data.ratings["movie_id"].isin(ids).mean()) for name, ids in known.items()}
    return CreditsSummary(
        movies_with_director=len(known["director"]),
        movies_with_star=len(known["star"]),
        ratings_with_director=covered["director"],
        ratings_with_star=covered["star"],
    )
