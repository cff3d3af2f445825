"""`movielens recommend`: asks a model server for movies."""

import dataclasses
import json
import math
import re
from datetime import UTC, datetime
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.local.quiet_tensorflow import import_tensorflow_quietly
from serving.client import Recommendation, RecommenderClient, ServingClientError
from serving.client.recommender import HIGHEST_AGE, HIGHEST_OCCUPATION

FAILED, BAD_INPUT = 1, 2  # Exit codes.

_GRPC_PORT, _REST_PORT = 8500, 8501


def recommend(
    user: Annotated[
        int | None, typer.Option(help="Id of a user; the recommender knows the history of every user of its data.")
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(help="Ids of movies already seen, oldest first, for example 1,260,1196.", metavar="ID,ID,…"),
    ] = None,
    ratings: Annotated[
        str | None,
        typer.Option(
            help="Ratings of the movies of --history, 1 to 5, in its order, for example 5,4,5.", metavar="R,R,…"
        ),
    ] = None,
    timestamps: Annotated[
        str | None,
        typer.Option(
            help="Times of the ratings of --history, in its order, each as --now; 0 where unknown.", metavar="T,T,…"
        ),
    ] = None,
    now: Annotated[
        str | None,
        typer.Option(
            help="For which moment to recommend: seconds since 1970, or a date or time such as 2003-02-28T17:49, "
            "which is UTC unless it has an offset; 0 for a moment that is not known.",
            metavar="T",
            show_default="the clock's time",
        ),
    ] = None,
    gender: Annotated[Literal["M", "F"] | None, typer.Option(help="Gender of the person.")] = None,
    age: Annotated[
        str | None, typer.Option(help=f"Age of the person in years, 1 to {HIGHEST_AGE}.", metavar="YEARS")
    ] = None,
    occupation: Annotated[
        str | None,
        typer.Option(
            help=f"Occupation of the person, by MovieLens's code: 0 (other or not specified) to {HIGHEST_OCCUPATION}.",
            metavar="CODE",
        ),
    ] = None,
    zip_code: Annotated[str | None, typer.Option(help="US ZIP code of the person.", metavar="ZIP")] = None,
    exclude: Annotated[
        str | None, typer.Option(help="Ids of movies not to recommend, for example 1,260.", metavar="ID,ID,…")
    ] = None,
    k: Annotated[
        int, typer.Option("--k", "-k", min=1, help="Number of movies to recommend, if the recommender ranks as many.")
    ] = 10,
    host: Annotated[str, typer.Option(help="Host of the model server.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the model server.", show_default="8500; with --rest 8501"),
    ] = None,
    deadline: Annotated[float, typer.Option(help="Seconds within which the answer must be there.")] = 10.0,
    rest: Annotated[bool, typer.Option("--rest", help="Use REST instead of gRPC; it needs no TensorFlow.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Ask a model server, such as `movielens serve`, which movies a user would like.

    Give the id of a user (`--user 7`), or the history of a person who is not in the data (`--history 1,260,1196`), or
    both, to replace the history of a user. For a person without a history, gender, age, occupation or ZIP code will do
    (`--gender F --age 25`).

    Exits with 1 if no server answers in time or the server has no recommender, and with 2 if an option is invalid.
    """
    if all(known is None for known in (user, history, gender, age, occupation, zip_code)):
        _fail("--user, --history, --gender, --age, --occupation or --zip-code should be given.", BAD_INPUT)
    if user is not None and not 0 < user < 2**63:
        _fail(f"--user should be positive and below 2**63; received {user}.", BAD_INPUT)
    for option, given in (("--ratings", ratings), ("--timestamps", timestamps)):
        if given is not None and history is None:
            _fail(f"{option} should come with --history; received {given!r} alone.", BAD_INPUT)
    years = 0 if age is None else _parse_whole_number("--age", age, 1, HIGHEST_AGE)
    code = 0 if occupation is None else _parse_whole_number("--occupation", occupation, 0, HIGHEST_OCCUPATION)
    if zip_code == "":
        _fail("--zip-code should not be empty; received ''.", BAD_INPUT)
    movie_ids = [_parse_movie_id("--history", item) for item in _comma_separated(history)]
    stars = [_parse_rating(item) for item in _comma_separated(ratings)]
    times = [_parse_time("--timestamps", item) for item in _comma_separated(timestamps)]
    moment = None if now is None else _parse_time("--now", now)
    excluded = [_parse_movie_id("--exclude", item) for item in _comma_separated(exclude)]
    if not rest:
        import_tensorflow_quietly()
    try:
        with RecommenderClient(
            host,
            port or (_REST_PORT if rest else _GRPC_PORT),
            transport="rest" if rest else "grpc",
            deadline_seconds=deadline,
        ) as client:
            movies = client.recommend(
                user or 0,
                movie_ids,
                stars,
                k,
                timestamps=times,
                now=moment,
                gender=gender or "",
                age=years,
                occupation=code,
                zip_code=zip_code or "",
                exclude=excluded,
            )
    except ValueError as error:
        _fail(str(error), BAD_INPUT)
    except ServingClientError as error:
        # What a server says may have several lines.
        _fail(" ".join(str(error).split()), FAILED)
    _print_movies(movies, as_json)


def _print_movies(movies: list[Recommendation], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(movie) for movie in movies], indent=1, ensure_ascii=False))
        return
    Console().print(recommendations_table(movies))


def recommendations_table(movies: list[Recommendation]) -> Table:
    """Returns a table with the rank, title and predicted rating of each movie."""
    table = Table("Rank", "Title", "Predicted rating")
    table.columns[0].justify = table.columns[2].justify = "right"
    for rank, movie in enumerate(movies, start=1):
        table.add_row(str(rank), escape(movie.title), f"{movie.predicted_rating:.2f}")
    return table


def _comma_separated(text: str | None) -> list[str]:
    return [] if text is None else text.split(",")


def _parse_whole_number(option: str, text: str, least: int, most: int) -> int:
    # typer's own messages do not show what was received.
    if not re.fullmatch(r"[0-9]{1,30}", text) or not least <= int(text) <= most:
        _fail(f"{option} should be a whole number from {least} to {most}; received {text!r}.", BAD_INPUT)
    return int(text)


def _parse_movie_id(option: str, text: str) -> int:
    # int() alone would read 1_260 as 1260.
    if not re.fullmatch(r"\s*-?[0-9]{1,30}\s*", text):
        _fail(f"{option} should be movie ids with commas between them; received {text!r}.", BAD_INPUT)
    return int(text)


def _parse_time(option: str, text: str) -> int:
    """Returns seconds since 1970."""
    text = text.strip()
    if re.fullmatch(r"(19|20)[0-9]{2}((0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01]))?", text):
        # As seconds it would be a moment of 1970, which hardly anybody means.
        _fail(f"{option} should be written like 2003-02-28 if it is a date; received {text!r}.", BAD_INPUT)
    if re.fullmatch(r"[0-9]{1,30}", text):
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        _fail(
            f"{option} should be seconds since 1970, or a date or time such as 2003-02-28T17:49; received {text!r}.",
            BAD_INPUT,
        )
    seconds = math.floor((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    if seconds < 0:
        _fail(f"{option} should not be before 1970; received {text!r}.", BAD_INPUT)
    return seconds


def _parse_rating(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        _fail(f"--ratings should be numbers with commas between them; received {text!r}.", BAD_INPUT)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(f"[red]Error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)
