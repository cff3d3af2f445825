"""Client of the recommender: asks for movies for a known user, or for a new user with a history of rated movies."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import numpy as np

from serving.client import arguments
from serving.client.errors import (
    ModelNotFoundError,
    ServerUnavailableError,
    ServerUnreachableError,
    ServingClientError,
)
from serving.client.rest_transport import RestTransport
from serving.client.transport import DEFAULT_ATTEMPTS, Transport

RECOMMENDER = "recommender"

_HIGHEST_RATING = 5
_POLL_SECONDS = 0.5

_COLUMNS = {"movie_id": np.int64, "title": object, "predicted_rating": np.float32, "retrieval_score": np.float32}


@dataclass(frozen=True)
class Recommendation:
    """A movie that the recommender suggests.

    Attributes:
      movie_id: Id of the movie.
      title: Title of the movie, with its year.
      predicted_rating: Stars that the ranking model predicts, 1 to 5.
      retrieval_score: Score of the retrieval model; comparable only within one answer.
    """

    movie_id: int
    title: str
    predicted_rating: float
    retrieval_score: float


class RecommenderClient:
    """Asks a model server for recommendations; a context manager. Several threads may share one.

    Example:
      with RecommenderClient("127.0.0.1", 8501, transport="rest") as client:
          for movie in client.recommend(user_id=7):
              ...

    Args:
      host: Host of the server.
      port: Port of the server for the chosen transport, gRPC or REST.
      transport: "grpc", which imports TensorFlow, or "rest", which does not.
      deadline_seconds: Seconds within which an answer must be there, all attempts and pauses between them together.
      attempts: Maximum number of attempts when the server cannot be reached or is unavailable.
      model: Name of the recommender on the server.

    Raises:
      ValueError: An argument is out of range or of the wrong type.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8500,
        *,
        transport: Literal["grpc", "rest"] = "grpc",
        deadline_seconds: float = 10.0,
        attempts: int = DEFAULT_ATTEMPTS,
        model: str = RECOMMENDER,
    ) -> None:
        self._model = arguments.model_name(model)
        self._transport = _connect(transport, host, port, deadline_seconds, attempts)

    def recommend(
        self,
        user_id: int = 0,
        history: Sequence[int] | np.ndarray = (),
        ratings: Sequence[float] | np.ndarray = (),
        k: int = 10,
    ) -> list[Recommendation]:
        """Returns the `k` best movies, best first; fewer when the recommender finds fewer.

        Args:
          user_id: Id of the user; 0 for an unknown user. Without `history`, the recommender uses its stored history
            of a known user, and gives all unknown users the same movies.
          history: Ids of movies that the user rated, oldest first; replaces the stored history of a known user. Movies
            that are not in the catalogue are ignored.
          ratings: Ratings of the movies in `history`, 1 to 5, or 0 where unknown; if empty, all are unknown.
          k: Number of movies; at most as many as the recommender ranks.

        Raises:
          ValueError: An argument is out of range or of the wrong type, or `ratings` and `history` differ in length.
          ServingClientError: No server answers, the server has no recommender, or it rejects the request.
        """
        user, movies, stars, number = _check_arguments(user_id, history, ratings, k)
        outputs = self._transport.predict(
            self._model,
            {
                "user_id": np.array([user], np.int64),
                "history_movie_ids": np.array([movies], np.int64),
                "history_ratings": np.array([stars], np.float32),
            },
        )
        rows = self._rows(outputs)
        if number > len(rows):
            raise ValueError(
                f"k should be at most {len(rows)}, the movies that the recommender ranks; received {number}."
            )
        # The model pads a list that is too short with movie id 0.
        return [row for row in rows if row.movie_id != 0][:number]

    def _rows(self, outputs: Mapping[str, np.ndarray]) -> list[Recommendation]:
        """Returns the places of an answer, best first, with empty ones.

        Raises:
          ServingClientError: These are not the outputs of a recommender.
        """
        try:
            # The types of the signature: REST sends decimals that only as float32 are the model's numbers again.
            columns = [_as_type(outputs[name], dtype) for name, dtype in _COLUMNS.items()]
            if any(column.ndim != 2 or len(column) != 1 for column in columns):
                raise ValueError(f"shapes {[column.shape for column in columns]}")
            return [
                Recommendation(int(movie_id), title.decode(), float(rating), float(score))
                for movie_id, title, rating, score in zip(*(column[0] for column in columns), strict=True)
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            received = {name: f"{array.dtype}{list(array.shape)}" for name, array in outputs.items()}
            raise ServingClientError(
                f"{self._model} at {self._transport.address} should answer with {', '.join(_COLUMNS)} for one person; "
                f"received {received or 'nothing'} ({error}). Is {self._model} a recommender?"
            ) from error

    def wait_until_available(self, timeout_seconds: float) -> int:
        """Waits until the recommender is available and returns its version; see the module's `wait_until_available`."""
        return wait_until_available(self._transport, self._model, timeout_seconds)

    def close(self) -> None:
        """Closes the connection; calls after that raise ServingClientError."""
        self._transport.close()

    def __enter__(self) -> "RecommenderClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def wait_until_available(transport: Transport, model: str, timeout_seconds: float) -> int:
    """Waits until any version of a model is AVAILABLE, and returns the newest such version.

    The server is asked once at least, and has half a second to answer even if less is left.

    Raises:
      ValueError: An argument is out of range or of the wrong type.
      ServingClientError: No version became available in time; the message contains the last answer.
    """
    arguments.model_name(model)
    deadline = time.monotonic() + arguments.seconds("timeout_seconds", timeout_seconds, or_zero=True)
    while True:
        try:
            states = transport.states(model, max(deadline - time.monotonic(), _POLL_SECONDS))
            last = f"its versions are {states}"
        except (ModelNotFoundError, ServerUnreachableError, ServerUnavailableError) as error:
            states, last = {}, str(error)
        available = [version for version, state in states.items() if state == "AVAILABLE"]
        if available:
            return max(available)
        left = deadline - time.monotonic()
        if left <= 0:
            raise ServingClientError(f"{model} should be available within {timeout_seconds:g} s; {last}")
        time.sleep(min(_POLL_SECONDS, left))


def _as_type(array: np.ndarray, dtype: type) -> np.ndarray:
    # Over REST an empty array has no type, so any will do.
    return array.astype(dtype, casting="same_kind" if array.size else "unsafe")


def _connect(transport: str, host: str, port: int, deadline_seconds: float, attempts: int) -> Transport:
    if transport == "rest":
        return RestTransport(host, port, deadline_seconds, attempts)
    if transport == "grpc":
        # This module imports TensorFlow, which REST does without.
        from serving.client.grpc_transport import GrpcTransport

        return GrpcTransport(host, port, deadline_seconds, attempts)
    raise ValueError(f'transport should be "grpc" or "rest"; received {transport!r}.')


def _check_arguments(
    user_id: object, history: object, ratings: object, k: object
) -> tuple[int, list[int], list[float], int]:
    """Returns the arguments of `recommend` as plain numbers, with a rating, or 0, for every movie of the history."""
    user = arguments.whole_number("user_id", user_id)
    if not 0 <= user < 2**63:
        raise ValueError(f"user_id should be positive and below 2**63, or 0 for an unknown user; received {user}.")
    number = arguments.whole_number("k", k)
    if number < 1:
        raise ValueError(f"k should be at least 1; received {number}.")
    movies = [
        arguments.whole_number("Each movie id in history", movie) for movie in arguments.items("history", history)
    ]
    for movie in movies:
        if not 0 < movie < 2**63:
            raise ValueError(f"Each movie id in history should be below 2**63 and positive; received {movie}.")
    stars = [arguments.real_number("Each of the ratings", rating) for rating in arguments.items("ratings", ratings)]
    if stars and len(stars) != len(movies):
        raise ValueError(
            f"There should be a rating for each of the {len(movies)} movies of the history; received {len(stars)}."
        )
    for rating in stars:
        if rating != 0 and not 1 <= rating <= _HIGHEST_RATING:
            raise ValueError(f"Ratings should be 1 to {_HIGHEST_RATING}, or 0 where unknown; received {rating}.")
    return user, movies, stars or [0.0] * len(movies), number
