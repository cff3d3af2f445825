"""`movielens recommend`: asks a model server for movies."""

import dataclasses
import json
import re
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.local.quiet_tensorflow import import_tensorflow_quietly
from serving.client import Recommendation, RecommenderClient, ServingClientError

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
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Number of movies to recommend.")] = 10,
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
    both, to replace the history of a user.

    Exits with 1 if no server answers in time or the server has no recommender, and with 2 if an option is invalid.
    """
    if user is None and history is None:
        _fail("Either --user or --history should be given.", BAD_INPUT)
    if user is not None and not 0 < user < 2**63:
        _fail(f"--user should be positive and below 2**63; received {user}.", BAD_INPUT)
    if ratings is not None and history is None:
        _fail("--ratings should come with --history.", BAD_INPUT)
    movie_ids = [_parse_movie_id(item) for item in _comma_separated(history)]
    stars = [_parse_rating(item) for item in _comma_separated(ratings)]
    if not rest:
        import_tensorflow_quietly()
    try:
        with RecommenderClient(
            host,
            port or (_REST_PORT if rest else _GRPC_PORT),
            transport="rest" if rest else "grpc",
            deadline_seconds=deadline,
        ) as client:
            movies = client.recommend(user or 0, movie_ids, stars, k)
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


def _parse_movie_id(text: str) -> int:
    # int() alone would read 1_260 as 1260.
    if not re.fullmatch(r"\s*-?[0-9]{1,30}\s*", text):
        _fail(f"--history should be movie ids with commas between them; received {text!r}.", BAD_INPUT)
    return int(text)


def _parse_rating(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        _fail(f"--ratings should be numbers with commas between them; received {text!r}.", BAD_INPUT)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(f"[red]Error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)
