"""`movielens data`: make, fetch and check the files that the pipeline reads."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from components.data.fetch import LICENCE, MD5, URL, FetchError, fetch_movielens
from components.data.raw_files import DataError, read_movielens
from components.data.sample import generate_sample
from components.data.summary import Summary, summarize
from pipeline.config import SampleConfig

app = typer.Typer(no_args_is_help=True, help="Make, fetch and check the data that the pipeline reads.")

FAILED, BAD_INPUT = 1, 2  # Exit codes.
_DEFAULTS = SampleConfig()

Output = Annotated[Path, typer.Option(help="Folder to write; new or empty.", file_okay=False)]


@app.command()
def sample(
    output: Output,
    users: Annotated[int, typer.Option(help="Number of users.")] = _DEFAULTS.users,
    movies: Annotated[int, typer.Option(help="Number of movies.")] = _DEFAULTS.movies,
    ratings: Annotated[int, typer.Option(help="Number of ratings.")] = _DEFAULTS.ratings,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = _DEFAULTS.seed,
    force: Annotated[bool, typer.Option("--force", help="Replace other data files in the folder.")] = False,
) -> None:
    """Generate synthetic data in MovieLens 1M's layout, with taste, credits and viewing order planted in it."""
    try:
        generate_sample(output, users, movies, ratings, seed, force)
    except (FileExistsError, ValueError) as error:
        _fail(str(error), BAD_INPUT)
    except OSError as error:
        _fail(f"{output}: cannot be written; {error.strerror}.", FAILED)
    _print_summary(output)


@app.command()
def fetch(
    output: Output,
    url: Annotated[str, typer.Option(help="The archive's address, where it is not GroupLens's.")] = URL,
    md5: Annotated[str, typer.Option(help="The archive's checksum.")] = MD5,
) -> None:
    """Download MovieLens 1M (6 MB) from GroupLens; a download that broke off goes on where it was."""
    console = Console()
    console.print(LICENCE, soft_wrap=True, highlight=False, markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("ml-1m.zip", total=None)
            fetch_movielens(output, url, md5, lambda done, total: bar.update(task, completed=done, total=total))
    except FileExistsError as error:
        _fail(str(error), BAD_INPUT)
    except FetchError as error:
        _fail(str(error), FAILED)
    except OSError as error:
        _fail(f"{output}: cannot be written; {error.strerror}.", FAILED)
    _print_summary(output)


@app.command()
def check(folder: Annotated[Path, typer.Argument(help="Folder with users.dat, movies.dat and ratings.dat.")]) -> None:
    """Check every line of a data folder and show what it holds; exits with 2, and counts bad lines, if any is wrong."""
    _print_summary(folder)


def _print_summary(folder: Path) -> None:
    try:
        summary = summarize(read_movielens(folder))
    except DataError as error:
        _fail(str(error), BAD_INPUT)
    Console().print(_table(folder, summary))


def _table(folder: Path, summary: Summary) -> Table:
    table = Table("What", "How many", title=escape(str(folder)), title_justify="left")
    table.columns[1].justify = "right"
    table.add_row("Ratings", f"{summary.ratings:,}")
    table.add_row("Users", f"{summary.users:,}")
    table.add_row("Movies", f"{summary.movies:,}")
    table.add_row("Movies with a rating", f"{summary.rated_movies:,}")
    table.add_row("Rated pairs", f"{summary.density:.2%}")
    table.add_row("First rating (UTC)", f"{summary.first:%Y-%m-%d %H:%M}")
    table.add_row("Last rating (UTC)", f"{summary.last:%Y-%m-%d %H:%M}")
    for value, count in summary.histogram.items():
        table.add_row(f"Ratings of {value}", f"{count:,} ({count / summary.ratings:.1%})")
    credits = summary.credits
    if credits is None:
        table.add_row("Credits", "no credits.csv")
    else:
        shares = credits.ratings_with_director, credits.ratings_with_star
        table.add_row("Movies with a director", f"{credits.movies_with_director:,} ({shares[0]:.1%} of ratings)")
        table.add_row("Movies with a star", f"{credits.movies_with_star:,} ({shares[1]:.1%} of ratings)")
    return table


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(f"[red]Error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)
