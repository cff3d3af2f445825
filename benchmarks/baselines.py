"""Models without deep learning: popularity, EASE and iALS; user and movie biases, biased matrix factorisation."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import cg

from benchmarks.dataset import Ratings


def popularity(train: Ratings, n_movies: int) -> np.ndarray:
    """Number of ratings of each movie, float32 [n_movies]."""
    return np.bincount(train.movies, minlength=n_movies).astype(np.float32)


def group_popularity(ratings: Ratings, groups: np.ndarray, n_movies: int, prior: float) -> np.ndarray:
    """Each movie's share of the ratings that a user's group gave, float32 [n_users, n_movies].

    Args:
      ratings: the ratings to count.
      groups: int64 [n_users], the group number of each user, from 0.
      n_movies: number of movies.
      prior: number of ratings added to each group, distributed over the movies like all users' ratings; more than 0.
    """
    counts = np.zeros((groups.max() + 1, n_movies))
    np.add.at(counts, (groups[ratings.users], ratings.movies), 1)
    everybody = counts.sum(axis=0) / counts.sum()
    shares = (counts + prior * everybody) / (counts.sum(axis=1, keepdims=True) + prior)
    return shares.astype(np.float32)[groups]


def ease(seen: sparse.csr_array, penalty: float) -> np.ndarray:
    """Weights of a linear autoencoder without self-similarity (Steck 2019, https://arxiv.org/abs/1905.03375).

    Args:
      seen: float [n_users, n_movies], 1 where rated, else 0.
      penalty: L2 penalty on the item-item weights, in ratings.

    Returns:
      float32 [n_movies, n_movies]; `seen` times this matrix gives the scores.
    """
    gram = (seen.T @ seen).toarray()
    gram[np.diag_indices_from(gram)] += penalty
    precision = linalg.inv(gram, overwrite_a=True)
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)


def ials(seen: sparse.csr_array, rank: int, weight: float, penalty: float, seed: int, sweeps: int = 15) -> np.ndarray:
    """Scores of implicit alternating least squares (Hu et al. 2008, https://doi.org/10.1109/ICDM.2008.22).

    Args:
      seen: float [n_users, n_movies], 1 where rated, else 0.
      rank: number of factors.
      weight: weight of the squared error where rated; elsewhere it is 1.
      penalty: L2 penalty on the factors, the same whatever the number of ratings.
      seed: seed of the initial factors.
      sweeps: number of alternations.

    Returns:
      float32 [n_users, n_movies].
    """
    # Imported here, because the other methods do not need these packages.
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    # implicit starts threads of its own; its authors say that BLAS threads beside them make it up to ten times slower.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=rank, alpha=weight, regularization=penalty, iterations=sweeps, use_gpu=False, random_state=seed
        )
        model.fit(sparse.csr_matrix(seen, dtype=np.float32), show_progress=False)
    return model.user_factors @ model.item_factors.T


@dataclass(frozen=True)
class FactorModel:
    """rating = mean + user bias + movie bias + user factors · movie factors.

    Attributes:
      mean: mean rating of train.
      users: float64 [n_users, rank + 1], factors and, in the last column, biases.
      movies: float64 [n_movies, rank + 1], likewise.
    """

    mean: float
    users: np.ndarray
    movies: np.ndarray

    def predict(self, users: np.ndarray, movies: np.ndarray) -> np.ndarray:
        """Predicted ratings of pairs of user and movie, float64 [pairs]."""
        u, m = self.users[users], self.movies[movies]
        return self.mean + u[:, -1] + m[:, -1] + np.einsum("pk,pk->p", u[:, :-1], m[:, :-1])


def fit_biases(train: Ratings, n_users: int, n_movies: int, penalty: float) -> FactorModel:
    """Fits only biases, by ridge regression; solves the normal equations for all biases at once.

    Args:
      train: the ratings to fit.
      n_users: number of users.
      n_movies: number of movies.
      penalty: L2 penalty; it halves the bias of a user or movie with this number of ratings.

    Returns:
      A model with no factors.

    Raises:
      ArithmeticError: the conjugate gradient method did not converge.
    """
    mean = float(train.stars.mean())
    rows = np.arange(len(train))
    shape = (len(train), n_users + n_movies)
    columns = np.concatenate([train.users, n_users + train.movies])
    design = sparse.csr_array((np.ones(2 * len(train)), (np.tile(rows, 2), columns)), shape=shape)
    normal = (design.T @ design + penalty * sparse.eye_array(shape[1])).tocsr()
    scale = sparse.diags_array(1 / normal.diagonal())
    biases, failed = cg(normal, design.T @ (train.stars - mean), rtol=1e-10, M=scale)
    if failed:
        raise ArithmeticError(f"conjugate gradients should converge; stopped with code {failed}.")
    return FactorModel(mean, biases[:n_users, np.newaxis], biases[n_users:, np.newaxis])


def fit_factors(
    train: Ratings, n_users: int, n_movies: int, rank: int, penalty: float, seed: int, sweeps: int = 20
) -> FactorModel:
    """Fits biases and factors by alternating least squares (Koren et al. 2009, https://doi.org/10.1109/MC.2009.263).

    Args:
      train: the ratings to fit.
      n_users: number of users.
      n_movies: number of movies.
      rank: number of factors.
      penalty: L2 penalty on factors and biases, the same whatever the number of ratings.
      seed: seed of the movies' initial factors.
      sweeps: number of alternations.
    """
    mean = float(train.stars.mean())
    movies = np.random.default_rng(seed).normal(0, 0.1, (n_movies, rank + 1))
    movies[:, -1] = 0
    by_user = _GroupedRatings.by(train.users, n_users)
    by_movie = _GroupedRatings.by(train.movies, n_movies)
    targets = train.stars - mean
    for _ in range(sweeps):
        users = by_user.ridge(movies[train.movies], targets, penalty)
        movies = by_movie.ridge(users[train.users], targets, penalty)
    return FactorModel(mean, users, movies)


@dataclass(frozen=True)
class _GroupedRatings:
    """Ratings grouped by user or by movie.

    Attributes:
      order: int64 [ratings], numbers of the ratings, sorted by group.
      offsets: int64 [groups + 1]; group i has the ratings `order[offsets[i]:offsets[i + 1]]`.
    """

    order: np.ndarray
    offsets: np.ndarray

    @classmethod
    def by(cls, keys: np.ndarray, size: int) -> "_GroupedRatings":
        """Groups ratings by `keys`, int64 [ratings], the group number of each; `size` is the number of groups."""
        offsets = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=size))])
        return cls(np.argsort(keys, kind="stable"), offsets)

    def ridge(self, others: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
        """Fits factors and bias of each group by ridge regression, with those of the other side held fixed.

        Args:
          others: float64 [ratings, rank + 1], factors and bias of the other side (movie or user) of each rating.
          targets: float64 [ratings], ratings minus their mean.
          penalty: L2 penalty.

        Returns:
          float64 [groups, rank + 1], factors and bias; 0 for empty groups.
        """
        others = others[self.order]
        residuals = targets[self.order] - others[:, -1]
        others[:, -1] = 1
        solutions = np.zeros((len(self.offsets) - 1, others.shape[1]))
        ridge = penalty * np.eye(others.shape[1])
        for group, (start, end) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            if end > start:
                features = others[start:end]
                normal = features.T @ features + ridge
                solutions[group] = np.linalg.solve(normal, features.T @ residuals[start:end])
        return solutions
