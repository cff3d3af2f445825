"""The random model behind the synthetic data: which effects decide how users rate movies, and what they watch.

A rating is a score, cut into 1 to 5 such that each of the five has the same share as in MovieLens 1M. The score is the
sum of independent effects, listed in STRENGTHS with their standard deviations, and of noise (NOISE):

    (user_id), (movie_id), (director), (star)                   biases: harsh users, good movies, good names
    (user_id, movie_id)                                         latent taste: inner product of TASTE_DIM factors
    (user_id, director), (user_id, star)                        a user's liking for a name: NAME_DIM factors
    (occupation, genres), (gender, genres), (age, genres)       one number for each pair of codes

No other feature or pair has an effect: zip_code, release_year and the words of a title do not change the score, nor
does the pair of gender and star, for example. Users choose movies by their interactions with them (TASTE_IN_CHOICE)
and by the movies' popularity (POPULARITY_SKEW; good movies are popular). After a movie, a user watches its successor
(`World.successor`) next with probability NEXT_MOVIE.
"""

from dataclasses import dataclass

import numpy as np

from transform.features import AGE_CODES, GENDERS, GENRES, OCCUPATIONS

# Standard deviation of each planted effect, in rating points before rounding, by the features that it depends on.
STRENGTHS: dict[tuple[str, ...], float] = {
    ("user_id",): 0.4,
    ("movie_id",): 0.35,
    ("director",): 0.35,
    ("star",): 0.25,
    ("user_id", "movie_id"): 0.4,
    ("user_id", "director"): 0.35,
    ("user_id", "star"): 0.25,
    ("occupation", "genres"): 0.4,
    ("gender", "genres"): 0.3,
    ("age", "genres"): 0.2,
}
NOISE = 0.5  # Standard deviation of the noise, in the same unit.
NEXT_MOVIE = 0.3  # Probability that a user watches a movie's successor right after it, if not watched before.
TASTE_DIM, NAME_DIM = 4, 2
POPULARITY_SKEW = 0.6  # Standard deviation of the part of movies' log-popularity that their bias does not explain.
TASTE_IN_CHOICE = 2.5  # How strongly interactions decide what a user watches, in log-weight per rating point.

_MOVIES_PER_DIRECTOR, _MOVIES_PER_STAR = 6, 5
_FIRST_YEAR, _LAST_YEAR = 1919, 2000
_ACCENTED_WORDS = ("Château", "Señor", "Küche", "Élan", "Façade")
_SHARE_ACCENTED, _SHARE_UNCREDITED, _SHARE_LONG_ZIP = 0.03, 0.01, 0.01
# Shares in MovieLens 1M: of the age codes; of the occupations (0 to 20); of the genres, in the order of GENRES; of
# movies with 1 to 6 genres.
_AGE_SHARES = (0.037, 0.183, 0.346, 0.198, 0.091, 0.082, 0.063)
_OCCUPATION_SHARES = (
    *(0.118, 0.087, 0.044, 0.029, 0.126, 0.019, 0.039, 0.112, 0.003, 0.015, 0.032),
    *(0.021, 0.064, 0.024, 0.050, 0.024, 0.040, 0.083, 0.012, 0.012, 0.047),
)
_GENRE_SHARES = (
    *(0.130, 0.073, 0.027, 0.065, 0.309, 0.054, 0.033, 0.413, 0.018),
    *(0.011, 0.088, 0.029, 0.027, 0.121, 0.071, 0.127, 0.037, 0.018),
)
_GENRE_COUNT_SHARES = (0.522, 0.340, 0.108, 0.025, 0.004, 0.001)
_SHARE_MALE = 0.717


@dataclass(frozen=True)
class World:
    """Users, movies and the effects of one on the other; rows are in the order of users.dat and movies.dat.

    Attributes:
      gender, age, occupation: int64 [users], indices into GENDERS, AGE_CODES and range(OCCUPATIONS).
      zip_codes: the users' zip codes.
      movie_ids: int64 [movies], ascending, with gaps.
      titles: the movies' titles, with the year.
      genres: bool [movies, genres], in the order of GENRES.
      director, star: int64 [movies], indices into `director_names` and `star_names`.
      credited: bool [movies, 2], whether credits.csv names the director and the star.
      successor: int64 [movies], row of the movie that is likely to be watched next.
      popularity: float64 [movies], logarithm of how popular each movie is.
      bias: float64 [movies], the summed biases of a movie, its director and its star.
      user_bias: float64 [users], the users' biases.
      taste: factors, float64 [users, k] and [movies, k]; a user's interaction with a movie is the inner product.
    """

    gender: np.ndarray
    age: np.ndarray
    occupation: np.ndarray
    zip_codes: list[str]
    movie_ids: np.ndarray
    titles: list[str]
    genres: np.ndarray
    director: np.ndarray
    star: np.ndarray
    director_names: list[str]
    star_names: list[str]
    credited: np.ndarray
    successor: np.ndarray
    popularity: np.ndarray
    bias: np.ndarray
    user_bias: np.ndarray
    taste: tuple[np.ndarray, np.ndarray]

    def interactions(self, user: int) -> np.ndarray:
        """What the user's taste adds to each movie's score: float64 [movies]."""
        users, movies = self.taste
        # Rounded, because sums may differ in their last digits between processors, and the files must not.
        return np.round((movies * users[user]).sum(axis=1), 6)


def pair_strength(one: str, other: str) -> float:
    """The planted effect of two features together, in rating points (standard deviation); 0 if there is none."""
    return STRENGTHS.get((one, other), STRENGTHS.get((other, one), 0.0))


def draw_world(users: int, movies: int, seed: int) -> World:
    """Draws a world; the same arguments give the same world."""
    rng = np.random.default_rng([seed, 0])
    gender = (rng.random(users) >= _SHARE_MALE).astype(np.int64)
    age = rng.choice(len(AGE_CODES), users, p=_shares(_AGE_SHARES))
    occupation = rng.choice(OCCUPATIONS, users, p=_shares(_OCCUPATION_SHARES))
    genres = _draw_genres(rng, movies)
    directors, stars = -(-movies // _MOVIES_PER_DIRECTOR), -(-movies // _MOVIES_PER_STAR)
    director, star = rng.integers(directors, size=movies), rng.integers(stars, size=movies)
    bias = (
        STRENGTHS["movie_id",] * rng.standard_normal(movies)
        + STRENGTHS["director",] * rng.standard_normal(directors)[director]
        + STRENGTHS["star",] * rng.standard_normal(stars)[star]
    )
    taste = [
        _user_factors(rng, "movie_id", np.arange(users), np.arange(movies), TASTE_DIM),
        _user_factors(rng, "director", np.arange(users), director, NAME_DIM),
        _user_factors(rng, "star", np.arange(users), star, NAME_DIM),
        _genre_factors(rng, "occupation", occupation, OCCUPATIONS, genres),
        _genre_factors(rng, "gender", gender, len(GENDERS), genres),
        _genre_factors(rng, "age", age, len(AGE_CODES), genres),
    ]
    order = rng.permutation(movies)
    successor = np.empty(movies, np.int64)
    successor[order] = np.roll(order, -1)
    return World(
        gender=gender,
        age=age,
        occupation=occupation,
        zip_codes=_draw_zip_codes(rng, users),
        movie_ids=np.sort(rng.permutation(movies + -(-movies // 50))[:movies]) + 1,
        titles=_draw_titles(rng, movies),
        genres=genres,
        director=director,
        star=star,
        director_names=[f"Director {number:04d}" for number in range(1, directors + 1)],
        star_names=[f"Étoile {number:04d}" for number in range(1, stars + 1)],
        credited=rng.random((movies, 2)) >= _SHARE_UNCREDITED,
        successor=successor,
        popularity=POPULARITY_SKEW * rng.standard_normal(movies) + 0.5 * bias,
        bias=bias,
        user_bias=STRENGTHS["user_id",] * rng.standard_normal(users),
        taste=(np.hstack([user for user, _ in taste]), np.hstack([movie for _, movie in taste])),
    )


def _user_factors(
    rng: np.random.Generator, name: str, users: np.ndarray, names: np.ndarray, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws factors [users, dim] and [movies, dim] whose inner products are the effect of (user_id, name)."""
    scale = STRENGTHS["user_id", name] / np.sqrt(dim)
    left, right = rng.standard_normal((users.max() + 1, dim)), rng.standard_normal((names.max() + 1, dim))
    return scale * left[users], right[names]


def _genre_factors(
    rng: np.random.Generator, name: str, codes: np.ndarray, size: int, genres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws factors [users, genres] and [movies, genres] whose inner products are the effect of (name, genres)."""
    table = STRENGTHS[name, "genres"] * rng.standard_normal((size, len(GENRES)))
    return table[codes], genres / np.sqrt(genres.sum(axis=1, keepdims=True))


def _draw_genres(rng: np.random.Generator, movies: int) -> np.ndarray:
    counts = rng.choice(len(_GENRE_COUNT_SHARES), movies, p=_shares(_GENRE_COUNT_SHARES)) + 1
    # Gumbel-top-k: the genres with the largest keys are draws without replacement, weighted by the shares.
    keys = np.log(_shares(_GENRE_SHARES)) + rng.gumbel(size=(movies, len(GENRES)))
    ranks = np.argsort(np.argsort(-keys, axis=1), axis=1)
    return ranks < counts[:, None]


def _draw_titles(rng: np.random.Generator, movies: int) -> list[str]:
    age = np.minimum(rng.exponential(14, movies).astype(np.int64), _LAST_YEAR - _FIRST_YEAR)
    accented = rng.random(movies) < _SHARE_ACCENTED
    accented[0] = True
    words = rng.integers(len(_ACCENTED_WORDS), size=movies)
    return [
        f"{_ACCENTED_WORDS[words[row]] if accented[row] else 'Movie'} {row + 1:04d} ({_LAST_YEAR - age[row]})"
        for row in range(movies)
    ]


def _draw_zip_codes(rng: np.random.Generator, users: int) -> list[str]:
    codes, extensions = rng.integers(100_000, size=users), rng.integers(10_000, size=users)
    long = rng.random(users) < _SHARE_LONG_ZIP
    return [f"{codes[row]:05d}" + (f"-{extensions[row]:04d}" if long[row] else "") for row in range(users)]


def _shares(weights: tuple[float, ...]) -> np.ndarray:
    return np.array(weights) / sum(weights)
