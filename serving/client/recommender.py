"""Client of the recommender: asks for movies for a known user, or for a new one of whom something else is known."""

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

HIGHEST_AGE, HIGHEST_OCCUPATION = 150, 20

_SIGNATURE = "recommend"
_HIGHEST_RATING = 5
_POLL_SECONDS = 0.5

_LATEST_RATING = "for the time of the person's latest rating"

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
        *,
        timestamps: Sequence[int] | np.ndarray = (),
        now: int | None = None,
        gender: str = "",
        age: int = 0,
        occupation: int = 0,
        zip_code: str = "",
        exclude: Sequence[int] | np.ndarray = (),
    ) -> list[Recommendation]:
        """Returns the `k` best movies, best first.

        There are fewer than `k` when the recommender ranks fewer, or finds fewer that are neither rated nor excluded.

        Args:
          user_id: Id of the user; 0 for an unknown user. Without `history`, the recommender uses its stored history
            of a known user.
          history: Ids of movies that the user rated, oldest first; replaces the stored history of a known user. Movies
            that are not in the catalogue are ignored.
          ratings: Ratings of the movies in `history`, 1 to 5, or 0 where unknown; if empty, all are unknown.
          k: Number of movies, at least 1.
          timestamps: When the movies in `history` were rated, in seconds since 1970, or 0 where unknown; if empty, all
            are unknown.
          now: For which moment to recommend, in seconds since 1970; None for the clock's time, 0 for a moment
            that is not known.
          gender: "M" or "F"; "" if not known.
          age: Years, at most 150; 0 if not known.
          occupation: MovieLens's code, 0 to 20; 0 for "other or not specified".
          zip_code: US ZIP code; "" if not known.
          exclude: Ids of movies not to recommend.

        Raises:
          ValueError: An argument is out of range or of the wrong type, or `ratings` or `timestamps` differ in length
            from `history`.
          ServingClientError: No server answers, the server has no recommender of this version, or it rejects the
            request.
        """
        inputs = {
            "user_id": _column(_user_id(user_id)),
            **_history_inputs(history, ratings, timestamps),
            "now": _column(int(time.time()) if now is None else arguments.moment("now", now, _LATEST_RATING)),
            "gender": _column(_gender(gender).encode()),
            "age": _column(
                arguments.whole_number_in("age", age, 0, HIGHEST_AGE, f"1 to {HIGHEST_AGE} years, or 0 if not known")
            ),
            "occupation": _column(
                arguments.whole_number_in(
                    "occupation", occupation, 0, HIGHEST_OCCUPATION, f"a code of MovieLens, 0 to {HIGHEST_OCCUPATION}"
                )
            ),
            "zip_code": _column(arguments.text("zip_code", zip_code).encode()),
            "exclude_movie_ids": np.array([arguments.movie_ids("exclude", exclude)], np.int64),
            "k": _column(arguments.whole_number_in("k", k, 1, arguments.LARGEST_INT64, "at least 1 and below 2**63")),
        }
        # The model fills empty places with movie id 0.
        return [row for row in self._rows(self._ask(inputs)) if row.movie_id != 0][:k]

    def _ask(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return self._transport.predict(self._model, inputs, signature_name=_SIGNATURE)
        except ServingClientError as error:
            # The words before and after these differ between the protocols.
            if f'"{_SIGNATURE}" not found' not in str(error):
                raise
            raise ServingClientError(
                f"{str(error).rstrip('.')}. {self._model} is no recommender, or one of an earlier version of this "
                "project; push a recommender of this version."
            ) from error

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


def _column(value: int | bytes) -> np.ndarray:
    """Returns an input of one row."""
    return np.array([value], object if isinstance(value, bytes) else np.int64)


def _user_id(value: object) -> int:
    expected = "positive and below 2**63, or 0 for an unknown user"
    return arguments.whole_number_in("user_id", value, 0, arguments.LARGEST_INT64, expected)


def _gender(value: object) -> str:
    if not isinstance(value, str) or value not in ("M", "F", ""):
        raise ValueError(f'gender should be "M", "F", or "" if not known; received {value!r}.')
    return value


def _history_inputs(history: object, ratings: object, timestamps: object) -> dict[str, np.ndarray]:
    """Returns the inputs that describe a history; those of ratings and times are of width 0 if none is given."""
    movies = arguments.movie_ids("history", history)
    stars = [_rating(rating) for rating in arguments.items("ratings", ratings)]
    times = [
        arguments.moment("Each of the timestamps", moment, "where unknown")
        for moment in arguments.items("timestamps", timestamps)
    ]
    for name, values in (("ratings", stars), ("timestamps", times)):
        if len(values) not in (0, len(movies)):
            raise ValueError(
                f"{name} should be empty or hold one for each of the {len(movies)} movies of the history; "
                f"received {len(values)}."
            )
    return {
        "history_movie_ids": np.array([movies], np.int64),
        "history_ratings": np.array([stars], np.float32),
        "history_timestamps": np.array([times], np.int64),
    }


def _rating(value: object) -> float:
    stars = arguments.real_number("Each of the ratings", value)
    if stars != 0 and not 1 <= stars <= _HIGHEST_RATING:
        raise ValueError(f"Ratings should be 1 to {_HIGHEST_RATING}, or 0 where unknown; received {stars}.")
    return stars
