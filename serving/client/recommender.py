"""Client of the recommender: asks for movies for a known user, or for a new user with a history of rated movies."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import numpy as np

from serving.client.transports import (
    DEFAULT_ATTEMPTS,
    GrpcTransport,
    ModelNotFoundError,
    RestTransport,
    ServerUnreachableError,
    ServingClientError,
    Transport,
)

RECOMMENDER = "recommender"

_HIGHEST_RATING = 5
_POLL_SECONDS = 0.5


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
    """Asks a model server for recommendations; a context manager.

    Example:
      with RecommenderClient("127.0.0.1", 8501, transport="rest") as client:
          for movie in client.recommend(user_id=7):
              ...

    Args:
      host: Host of the server.
      port: Port of the server for the chosen transport, gRPC or REST.
      transport: "grpc", which imports TensorFlow, or "rest", which does not.
      deadline_seconds: Seconds within which the server must answer.
      attempts: Maximum number of attempts when the server cannot be reached or is unavailable.
      model: Name of the recommender on the server.
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
        self._transport: Transport = (
            RestTransport(host, port, deadline_seconds, attempts)
            if transport == "rest"
            else GrpcTransport(host, port, deadline_seconds, attempts)
        )
        self._model = model

    def recommend(
        self, user_id: int = 0, history: Sequence[int] = (), ratings: Sequence[float] = (), k: int = 10
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
          ValueError: An argument is out of range, or `ratings` and `history` differ in length.
          ServingClientError: No server answers, the server has no recommender, or it rejects the request.
        """
        _check_arguments(user_id, history, ratings, k)
        outputs = self._transport.predict(
            self._model,
            {
                "user_id": np.array([user_id], np.int64),
                "history_movie_ids": np.array([list(history)], np.int64),
                "history_ratings": np.array([list(ratings) or [0.0] * len(history)], np.float32),
            },
        )
        candidates = outputs["movie_id"].shape[1]
        if k > candidates:
            raise ValueError(f"k should be at most {candidates}, the movies that the recommender ranks; received {k}.")
        columns = (outputs[name][0] for name in ("movie_id", "title", "predicted_rating", "retrieval_score"))
        rows = [
            Recommendation(int(movie_id), title.decode(), float(rating), float(score))
            for movie_id, title, rating, score in zip(*columns, strict=True)
            # The model pads a list that is too short with movie id 0.
            if movie_id != 0
        ]
        return rows[:k]

    def wait_until_available(self, timeout_seconds: float) -> int:
        """Waits until the recommender is available and returns its version; see the module's `wait_until_available`."""
        return wait_until_available(self._transport, self._model, timeout_seconds)

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def __enter__(self) -> "RecommenderClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def wait_until_available(transport: Transport, model: str, timeout_seconds: float) -> int:
    """Waits until any version of a model is AVAILABLE, and returns the newest such version.

    Raises:
      ServingClientError: No version became available in time; the message contains the last answer.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            states = transport.states(model)
            last = f"its versions are {states}"
        except (ModelNotFoundError, ServerUnreachableError) as error:
            states, last = {}, str(error)
        available = [version for version, state in states.items() if state == "AVAILABLE"]
        if available:
            return max(available)
        if time.monotonic() >= deadline:
            raise ServingClientError(f"{model} should be available within {timeout_seconds:g} s; {last}")
        time.sleep(_POLL_SECONDS)


def _check_arguments(user_id: int, history: Sequence[int], ratings: Sequence[float], k: int) -> None:
    if not 0 <= user_id < 2**63:
        raise ValueError(f"user_id should be positive, or 0 for an unknown user; received {user_id}.")
    if k < 1:
        raise ValueError(f"k should be at least 1; received {k}.")
    for movie_id in history:
        if not 0 < movie_id < 2**63:
            raise ValueError(f"Movie ids in the history should be positive; received {movie_id}.")
    if ratings and len(ratings) != len(history):
        raise ValueError(
            f"There should be a rating for each of the {len(history)} movies of the history; received {len(ratings)}."
        )
    for rating in ratings:
        if rating != 0 and not 1 <= rating <= _HIGHEST_RATING:
            raise ValueError(f"Ratings should be 1 to {_HIGHEST_RATING}, or 0 where unknown; received {rating:g}.")
