"""The synthetic data set has the layout of MovieLens 1M, and the effects planted in it can be measured."""

import os
from pathlib import Path

import numpy as np
import pytest

from components.data.planted import NEXT_MOVIE, STRENGTHS, draw_world, pair_strength
from components.data.raw_files import MovieLens, read_movielens
from components.data.sample import generate_sample
from components.data.summary import summarize
from transform.features import GENRES

USERS, MOVIES, RATINGS = 600, 400, 40_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "data"
    generate_sample(path, USERS, MOVIES, RATINGS, seed=0)
    return path


@pytest.fixture(scope="module")
def data(folder) -> MovieLens:
    return read_movielens(folder)


@pytest.fixture(scope="module")
def rows(data) -> dict[str, np.ndarray]:
    """For each rating the user's and movie's row, the value, and a random split: 73 % train, 25 % test."""
    draw = np.random.default_rng(11).random(RATINGS)
    return {
        "user": data.ratings["user_id"].to_numpy() - 1,
        "movie": np.searchsorted(data.movies["movie_id"], data.ratings["movie_id"]),
        "rating": data.ratings["rating"].to_numpy(np.float64),
        "train": draw < 0.73,
        "test": draw >= 0.75,
    }


def _bytes(path):
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def test_the_same_arguments_give_the_same_bytes(folder, tmp_path):
    generate_sample(tmp_path / "again", USERS, MOVIES, RATINGS, seed=0)
    assert _bytes(tmp_path / "again") == _bytes(folder)
    generate_sample(tmp_path / "other", USERS, MOVIES, RATINGS, seed=1)
    other = _bytes(tmp_path / "other")
    assert all(other[name] != content for name, content in _bytes(folder).items())


def test_the_layout_is_that_of_movielens_1m(folder, data):
    assert set(_bytes(folder)) == {"users.dat", "movies.dat", "ratings.dat", "credits.csv"}
    movies = (folder / "movies.dat").read_bytes()
    assert not movies.isascii()
    with pytest.raises(UnicodeDecodeError):
        movies.decode("utf-8")
    summary = summarize(data)
    assert (summary.users, summary.movies, summary.ratings) == (USERS, MOVIES, RATINGS)
    # In MovieLens 1M, 5.6, 10.8, 26.1, 34.9 and 22.6 % of ratings are 1 to 5, from April 2000 to February 2003.
    shares = [count / RATINGS for count in summary.histogram.values()]
    np.testing.assert_allclose(shares, [0.056, 0.108, 0.261, 0.349, 0.226], atol=0.01)
    assert summary.first.year == 2000
    assert summary.last.year <= 2003
    assert data.ratings.groupby("user_id").size().min() >= 20
    assert data.movies["release_year"].between(1919, 2000).all()
    assert set(data.movies["genres"].map(len)) >= {1, 2, 3}
    assert data.movies["genres"].map(len).max() <= 6
    assert data.movies["movie_id"].max() > MOVIES, "ids should have gaps"
    assert summary.credits is not None
    assert 0.95 < summary.credits.ratings_with_director < 1
    assert data.credits is not None
    assert data.credits["director"].isna().any()


def test_ratings_come_in_bursts_and_out_of_order(data):
    time, user = data.ratings["timestamp"].to_numpy(), data.ratings["user_id"].to_numpy()
    assert (np.diff(user) >= 0).all()
    order = np.lexsort((time, user))
    gaps = np.diff(time[order])[np.diff(user[order]) == 0]
    # In MovieLens 1M, 57 % of ratings have the timestamp of the user's previous one; the median of the other gaps is
    # about a minute.
    assert 0.4 < (gaps == 0).mean() < 0.7
    assert 10 < np.median(gaps[gaps > 0]) < 120
    in_order = np.diff(time)[np.diff(user) == 0] >= 0
    assert 0.2 < in_order.mean() < 0.95


@pytest.mark.parametrize(
    ("users", "movies", "ratings", "least"),
    [(10, 20, 200, 20), (10, 20, 100, 10), (7, 5, 35, 5), (1, 1, 1, 1), (50, 400, 1000, 20), (3, 30, 3, 1)],
)
def test_any_possible_size_is_generated(tmp_path, users, movies, ratings, least):
    generate_sample(tmp_path / "data", users, movies, ratings, seed=2)
    data = read_movielens(tmp_path / "data")
    assert (len(data.users), len(data.movies), len(data.ratings)) == (users, movies, ratings)
    assert data.ratings.groupby("user_id").size().reindex(data.users["user_id"], fill_value=0).min() >= least


@pytest.mark.parametrize(
    ("sizes", "received"),
    [
        ((0, 5, 5, 0), "0, 5, 0"),
        ((5, 0, 5, 0), "5, 0, 0"),
        ((5, 5, 5, -1), "-1"),
        ((5, 5, 4, 0), "4"),
        ((5, 5, 26, 0), "26"),
    ],
)
def test_impossible_sizes_are_refused(tmp_path, sizes, received):
    with pytest.raises(ValueError, match=rf"should be .*; received .*{received}\.$"):
        generate_sample(tmp_path / "data", *sizes)
    assert list(tmp_path.iterdir()) == []


def test_a_different_data_set_is_replaced_only_with_force(tmp_path):
    folder = tmp_path / "data"
    generate_sample(folder, 10, 20, 200, seed=0)
    first = _bytes(folder)
    stamps = {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    generate_sample(folder, 10, 20, 200, seed=0)
    assert {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()} == stamps
    with pytest.raises(FileExistsError, match=r"new or empty; .* with credits\.csv"):
        generate_sample(folder, 10, 20, 200, seed=1)
    assert _bytes(folder) == first
    generate_sample(folder, 10, 20, 200, seed=1, force=True)
    assert _bytes(folder) != first
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_files_that_are_no_data_set_are_never_replaced(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        generate_sample(folder, 10, 20, 200, seed=0, force=True)
    assert _bytes(folder) == {"thesis.txt": b"years of work"}
    with pytest.raises(FileExistsError, match=r"thesis\.txt is a file"):
        generate_sample(folder / "thesis.txt", 10, 20, 200, seed=0, force=True)


def test_a_failed_generation_leaves_no_files(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    monkeypatch.setattr("pathlib.Path.rename", fail)
    with pytest.raises(OSError, match="No space left"):
        generate_sample(tmp_path / "data", 10, 20, 200, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_leaves_the_old_files(tmp_path, monkeypatch):
    generate_sample(tmp_path / "data", 10, 20, 200, seed=0)
    before = _bytes(tmp_path / "data")
    rename = Path.rename

    def fail_with_new_files(source, target):
        if source.name == "new":
            raise OSError(28, "No space left on device")
        return rename(source, target)

    monkeypatch.setattr("pathlib.Path.rename", fail_with_new_files)
    with pytest.raises(OSError, match="No space left"):
        generate_sample(tmp_path / "data", 10, 20, 200, seed=1, force=True)
    assert _bytes(tmp_path / "data") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_folders_that_cannot_be_replaced_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), tmp_path):
        with pytest.raises(FileExistsError, match="replaced as a whole; received the current folder"):
            generate_sample(folder, 10, 20, 200, seed=0)
    with pytest.raises(FileExistsError, match="received a mount point"):
        generate_sample(Path("/proc"), 10, 20, 200, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_personal_models_beat_popularity(rows):
    watched = np.zeros((USERS, MOVIES))
    watched[rows["user"][rows["train"]], rows["movie"][rows["train"]]] = 1
    # EASE (Steck 2019) is a ridge regression of each movie on all others.
    inverse = np.linalg.inv(watched.T @ watched + 300 * np.eye(MOVIES))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    popularity = np.tile(watched.sum(axis=0), (USERS, 1))
    personal, popular = (_filtered_recall(scores, watched, rows) for scores in (watched @ weights, popularity))
    assert personal > 1.5 * popular
    assert popular > 1.5 * 10 / MOVIES, "popularity should mean something too"


def _filtered_recall(scores, watched, rows):
    """Recall@10 of the test split over movies that the user has not watched in train; ties count as misses."""
    scores = np.where(watched > 0, -np.inf, scores)[rows["user"][rows["test"]]]
    score_of_watched = np.take_along_axis(scores, rows["movie"][rows["test"], None], axis=1)
    return ((scores >= score_of_watched).sum(axis=1) <= 10).mean()


def test_factors_beat_biases(rows):
    prediction = _biases(rows)
    residual = np.zeros((USERS, MOVIES))
    known = np.zeros((USERS, MOVIES), bool)
    place = rows["user"][rows["train"]], rows["movie"][rows["train"]]
    known[place] = True
    residual[place] = rows["rating"][rows["train"]] - prediction[place]
    dim, penalty = 8, 8.0
    movies = 0.1 * np.random.default_rng(0).standard_normal((MOVIES, dim))
    for _ in range(6):
        users = _ridge(residual, known, movies, penalty)
        movies = _ridge(residual.T, known.T, users, penalty)
    assert _rmse(prediction + users @ movies.T, rows) < 0.95 * _rmse(prediction, rows)


def _biases(rows, damping=3.0):
    """Predicts mean + user bias + movie bias, [users, movies]; the biases are fitted in turns."""
    user, movie, rating = (rows[name][rows["train"]] for name in ("user", "movie", "rating"))
    mean, user_bias, movie_bias = rating.mean(), np.zeros(USERS), np.zeros(MOVIES)
    for _ in range(10):
        residual = rating - mean - user_bias[user]
        movie_bias = np.bincount(movie, residual, MOVIES) / (np.bincount(movie, minlength=MOVIES) + damping)
        residual = rating - mean - movie_bias[movie]
        user_bias = np.bincount(user, residual, USERS) / (np.bincount(user, minlength=USERS) + damping)
    return mean + user_bias[:, None] + movie_bias


def _ridge(target, known, factors, penalty):
    grams = np.einsum("um,mk,ml->ukl", known.astype(np.float64), factors, factors, optimize=True)
    return np.linalg.solve(grams + penalty * np.eye(factors.shape[1]), (target @ factors)[..., None])[..., 0]


def _rmse(prediction, rows):
    error = prediction[rows["user"], rows["movie"]] - rows["rating"]
    return np.sqrt((error[rows["test"]] ** 2).mean())


def test_users_with_the_same_occupation_prefer_the_same_genres(data, rows):
    """Genre preferences fitted per occupation in train predict the residuals of test; shuffled occupations do not.

    Genders and age groups have planted genre preferences too, weaker than those of occupations.
    """
    prediction = _biases(rows)
    residual = rows["rating"] - prediction[rows["user"], rows["movie"]]
    genres = np.array([[genre in movie_genres for genre in GENRES] for movie_genres in data.movies["genres"]], float)
    genres /= np.sqrt(genres.sum(axis=1, keepdims=True))

    def correlation_in_test(codes):
        table = np.zeros((codes.max() + 1, len(GENRES)))
        for code in range(codes.max() + 1):
            has_code = rows["train"] & (codes[rows["user"]] == code)
            inputs = genres[rows["movie"][has_code]]
            table[code] = np.linalg.solve(inputs.T @ inputs + 5 * np.eye(len(GENRES)), inputs.T @ residual[has_code])
        estimate = (table[codes[rows["user"]]] * genres[rows["movie"]]).sum(axis=1)
        return np.corrcoef(estimate[rows["test"]], residual[rows["test"]])[0, 1]

    occupation = data.users["occupation"].to_numpy()
    gender = (data.users["gender"] == "F").to_numpy(np.int64)
    age = np.unique(data.users["age"], return_inverse=True)[1]
    shuffled = np.random.default_rng(5).permutation(occupation)
    assert pair_strength("genres", "occupation") > pair_strength("gender", "genres") > pair_strength("age", "genres")
    assert correlation_in_test(occupation) > 0.2
    assert correlation_in_test(gender) > 0.1
    assert correlation_in_test(age) > 0.1
    assert correlation_in_test(occupation) > 1.5 * correlation_in_test(shuffled)


def test_movies_of_the_same_director_or_star_have_similar_ratings(data, rows):
    """Movie biases vary more between directors (or stars) than between the groups of a shuffled column."""
    prediction = _biases(rows)
    movie_bias = prediction.mean(axis=0)

    def variance_share_between(names):
        groups = np.unique(names, return_inverse=True)[1]
        means = np.bincount(groups, movie_bias) / np.bincount(groups)
        return np.var(means[groups]) / np.var(movie_bias)

    rng = np.random.default_rng(6)
    for name in ("director", "star"):
        names = data.credits[name].fillna("?").to_numpy()
        shares_by_chance = [variance_share_between(rng.permutation(names)) for _ in range(200)]
        assert variance_share_between(names) > np.quantile(shares_by_chance, 0.99), name


def test_users_have_favourite_directors(data, rows):
    """A user's mean residuals for a director or star in train and test correlate more than for random groups."""
    residual = rows["rating"] - _biases(rows)[rows["user"], rows["movie"]]

    def correlation(groups):
        key = rows["user"] * (groups.max() + 1) + groups[rows["movie"]]
        size = key.max() + 1
        totals = {split: np.bincount(key[rows[split]], residual[rows[split]], size) for split in ("train", "test")}
        counts = {split: np.bincount(key[rows[split]], minlength=size) for split in ("train", "test")}
        both = (counts["train"] > 0) & (counts["test"] > 0)
        means = [totals[split][both] / counts[split][both] for split in ("train", "test")]
        return np.corrcoef(means[0], means[1])[0, 1]

    random_groups = np.random.default_rng(7).integers(67, size=MOVIES)
    for name in ("director", "star"):
        assert correlation(np.unique(data.credits[name].fillna("?"), return_inverse=True)[1]) > (
            correlation(random_groups) + 0.05
        ), name


def test_planted_popularity_shows_in_the_number_of_ratings(rows):
    world = draw_world(USERS, MOVIES, seed=0)
    counts = np.bincount(rows["movie"], minlength=MOVIES)
    assert np.corrcoef(world.popularity, np.log(counts + 1))[0, 1] > 0.5


def test_the_next_movie_is_often_the_planted_successor(data, rows):
    world = draw_world(USERS, MOVIES, seed=0)
    np.testing.assert_array_equal(np.sort(world.successor), np.arange(MOVIES))
    np.testing.assert_array_equal(world.movie_ids, data.movies["movie_id"])
    order = np.lexsort((np.arange(RATINGS), data.ratings["timestamp"], rows["user"]))
    user, movie = rows["user"][order], rows["movie"][order]
    same = user[1:] == user[:-1]
    followed = (world.successor[movie[:-1]] == movie[1:])[same].mean()
    # The share can be below NEXT_MOVIE, because a successor that was watched earlier is not watched again.
    assert 0.6 * NEXT_MOVIE < followed < 1.2 * NEXT_MOVIE


def test_drawn_effects_have_the_planted_strengths():
    world = draw_world(2000, 1000, seed=3)
    interactions = np.stack([world.interactions(user) for user in range(2000)])
    wanted = sum(value**2 for pair, value in STRENGTHS.items() if len(pair) == 2)
    # Some tables of drawn effects are small (2 genders), so the variance of one draw can be far from the expected one.
    assert 0.6 * wanted < interactions.var() < 1.5 * wanted
    assert world.user_bias.std() == pytest.approx(STRENGTHS["user_id",], rel=0.1)
    assert pair_strength("director", "user_id") == STRENGTHS["user_id", "director"]
    assert pair_strength("zip_code", "genres") == 0
