"""Writes synthetic data in MovieLens 1M's exact layout, with the structure that components.data.planted describes."""

import csv
import io
from pathlib import Path

import numpy as np

from components.data.output_folder import write_folder
from components.data.planted import NEXT_MOVIE, NOISE, TASTE_IN_CHOICE, World, draw_world
from components.data.raw_files import CREDIT_FIELDS, CREDITS_FILE, MOVIES_FILE, RATINGS_FILE, USERS_FILE
from transform.features import AGE_CODES, GENDERS, GENRES

MIN_RATINGS_PER_USER = 20  # As in MovieLens 1M; fewer if there are too few ratings or movies.

_RATING_SHARES = (0.0562, 0.1075, 0.2611, 0.3489, 0.2263)  # Shares of the ratings 1 to 5 in MovieLens 1M.
_ACTIVITY_SPREAD = 0.9  # Standard deviation of the logarithm of a user's number of ratings.
_FIRST_SECOND, _LAST_SECOND = 956_703_932, 1_046_454_590  # All timestamps lie between them; seconds since 1970.
# Probabilities that a rating has the same timestamp as the user's rating before it, and that it comes days later.
_SAME_SECOND, _LATER_SESSION = 0.55, 0.005
# Mean seconds between ratings, between sessions, and from the first second to a user's first rating.
_MEAN_GAP, _MEAN_BREAK, _MEAN_ARRIVAL = 50, 864_000, 12_000_000


def generate_sample(
    folder: Path, users: int = 600, movies: int = 400, ratings: int = 40_000, seed: int = 0, force: bool = False
) -> None:
    """Writes users.dat, movies.dat, ratings.dat and credits.csv; the same arguments give the same bytes.

    The folder is written as a whole or not at all. A folder that already holds the same bytes is left untouched.

    Args:
      folder: the folder to write; created if missing.
      users: number of users.
      movies: number of movies.
      ratings: number of ratings; at least one for each user, at most one for each pair of user and movie.
      seed: seed of all random draws.
      force: whether other data files in the folder are replaced.

    Raises:
      ValueError: a number is out of range.
      FileExistsError: as `components.data.output_folder.check_output_folder`.
    """
    if users < 1 or movies < 1 or seed < 0:
        raise ValueError(f"users, movies should be >= 1, seed >= 0; received {users}, {movies}, {seed}.")
    if not users <= ratings <= users * movies:
        raise ValueError(
            f"ratings should be from {users} (one a user) to {users * movies} (users x movies); received {ratings}."
        )
    world = draw_world(users, movies, seed)
    write_folder(Path(folder), render_files(world, draw_ratings(world, ratings, seed)), force)


def draw_ratings(world: World, ratings: int, seed: int) -> np.ndarray:
    """Draws which movies each user watches, when, and with how many stars the user rates them.

    Returns:
      int64 [ratings, 4], columns user row, movie row, rating and timestamp, grouped by user. As in MovieLens 1M, a
      user's rows are not sorted by time; rows with the same timestamp are in the order in which the user watched.
    """
    rng = np.random.default_rng([seed, 1])
    counts = _draw_activity(rng, world, ratings)
    movies, scores, times, order = [], [], [], []
    for user, count in enumerate(counts.tolist()):
        interactions = world.interactions(user)
        watched = _draw_watched(rng, world, interactions, count)
        movies.append(watched)
        scores.append(world.user_bias[user] + world.bias[watched] + interactions[watched])
        seconds = _draw_times(rng, count)
        times.append(seconds)
        order.append(np.lexsort((np.arange(count), rng.permutation(count)[np.searchsorted(seconds, seconds)])))
    noisy = np.round(np.concatenate(scores) + NOISE * rng.standard_normal(ratings), 6)
    # Cut by rank, so that each rating has its share in the data, whatever the distribution of the scores.
    cuts = np.round(np.cumsum(_RATING_SHARES)[:-1] * ratings).astype(np.int64)
    stars = np.empty(ratings, np.int64)
    stars[np.argsort(noisy, kind="stable")] = 1 + np.searchsorted(cuts, np.arange(ratings), side="right")
    offsets = np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.column_stack([np.repeat(np.arange(counts.size), counts), np.concatenate(movies), stars, np.hstack(times)])
    return rows[offsets + np.concatenate(order)]


def render_files(world: World, ratings: np.ndarray) -> dict[str, bytes]:
    """Returns the content of the four files by name; `ratings` is as `draw_ratings` returns it."""
    users = [
        f"{row + 1}::{GENDERS[world.gender[row]]}::{AGE_CODES[world.age[row]]}::{world.occupation[row]}::{zip_code}\n"
        for row, zip_code in enumerate(world.zip_codes)
    ]
    names = np.array(GENRES)
    movies = [
        f"{movie_id}::{title}::{'|'.join(names[genres])}\n"
        for movie_id, title, genres in zip(world.movie_ids, world.titles, world.genres, strict=True)
    ]
    ids = world.movie_ids.tolist()
    rows = [f"{user + 1}::{ids[movie]}::{stars}::{second}\n" for user, movie, stars, second in ratings.tolist()]
    credits = io.StringIO()
    writer = csv.writer(credits)
    writer.writerow(CREDIT_FIELDS)
    for row, movie_id in enumerate(ids):
        director, star = world.director_names[world.director[row]], world.star_names[world.star[row]]
        credited = world.credited[row]
        writer.writerow([movie_id, director if credited[0] else "", star if credited[1] else ""])
    return {
        USERS_FILE: "".join(users).encode("latin-1"),
        MOVIES_FILE: "".join(movies).encode("latin-1"),
        RATINGS_FILE: "".join(rows).encode("latin-1"),
        CREDITS_FILE: credits.getvalue().encode("utf-8"),
    }


def _draw_activity(rng: np.random.Generator, world: World, ratings: int) -> np.ndarray:
    """Draws how many movies each user rates: int64 [users], whose sum is `ratings`."""
    users, movies = world.gender.size, world.movie_ids.size
    least = min(MIN_RATINGS_PER_USER, ratings // users, movies)
    # Nobody rates more than half of the movies, unless more than a third of all pairs of user and movie are rated.
    most = max(movies // 2, least) if 3 * ratings <= users * movies else movies
    weights = np.exp(_ACTIVITY_SPREAD * rng.standard_normal(users))
    counts = np.full(users, least, np.int64)
    while missing := int(ratings - counts.sum()):
        free = np.where(counts < most, weights, 0)
        counts = np.minimum(counts + rng.multinomial(missing, free / free.sum()), most)
    return counts


def _draw_watched(rng: np.random.Generator, world: World, interactions: np.ndarray, count: int) -> np.ndarray:
    """Draws the movies that a user watches, in order: int64 [count], movie rows."""
    # Gumbel-top-k: the movies sorted by these keys are draws without replacement, with probabilities proportional to
    # exp(log_weights).
    log_weights = world.popularity + TASTE_IN_CHOICE * interactions
    keys = np.round(log_weights + rng.gumbel(size=log_weights.size), 6)
    drawn = iter(np.argsort(-keys, kind="stable").tolist())
    follows = (rng.random(count) < NEXT_MOVIE).tolist()
    successor = world.successor
    watched: dict[int, None] = {}
    last = -1
    for follow in follows:
        movie = int(successor[last]) if follow and last >= 0 else -1
        if movie < 0 or movie in watched:
            movie = next(candidate for candidate in drawn if candidate not in watched)
        watched[movie] = None
        last = movie
    return np.array(list(watched), np.int64)


def _draw_times(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draws a user's timestamps, which come in bursts: int64 [count], ascending, seconds since 1970."""
    kind = rng.random(count)
    gaps = 1 + rng.exponential(_MEAN_GAP, count)
    gaps += np.where(kind > 1 - _LATER_SESSION, rng.exponential(_MEAN_BREAK, count), 0)
    gaps[kind < _SAME_SECOND] = 0
    gaps[0] = rng.exponential(_MEAN_ARRIVAL)
    seconds = _FIRST_SECOND + np.cumsum(np.floor(gaps)).astype(np.int64)
    return np.minimum(seconds, _LAST_SECOND)
