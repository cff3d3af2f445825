"""`movielens data`: generate or download the files that the pipeline reads, add credits to them, and check them."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from components.data.credits import LinkCounts, make_credits, read_movie_ids
from components.data.fetch import LICENCE, MD5, URL, FetchError, fetch_movielens
from components.data.raw_files import MOVIES_FILE, DataError, read_movielens
from components.data.sample import generate_sample
from components.data.summary import Summary, summarize
from pipeline.config import SampleConfig
from pipeline.paths import data_path, local_path

app = typer.Typer(no_args_is_help=True, help="Generate, download and check the data that the pipeline reads.")

FAILED, BAD_INPUT = 1, 2  # Exit codes.
_DEFAULTS = SampleConfig()

_PROGRESS = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())

Output = Annotated[
    Path, typer.Option(help="Folder to write to; it should be new or empty.", metavar="DIR", parser=local_path)
]


@app.command()
def sample(
    output: Output,
    users: Annotated[int, typer.Option(help="Number of users.")] = _DEFAULTS.users,
    movies: Annotated[int, typer.Option(help="Number of movies.")] = _DEFAULTS.movies,
    ratings: Annotated[int, typer.Option(help="Number of ratings.")] = _DEFAULTS.ratings,
    seed: Annotated[
        int, typer.Option(help="Seed of the generator; the same seed gives the same files.")
    ] = _DEFAULTS.seed,
    force: Annotated[bool, typer.Option("--force", help="Replace other data files in the folder.")] = False,
) -> None:
    """Generate synthetic data in MovieLens 1M's layout, in which ratings depend on taste, credits and viewing order."""
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
    url: Annotated[str, typer.Option(help="Address of the archive, if not GroupLens's.")] = URL,
    md5: Annotated[str, typer.Option(help="MD5 checksum of the archive.")] = MD5,
) -> None:
    """Download MovieLens 1M (6 MB) from GroupLens; an interrupted download resumes where it stopped."""
    console = Console()
    console.print(LICENCE, soft_wrap=True, highlight=False, markup=False)
    try:
        with Progress(*_PROGRESS, console=console) as bar:
            task = bar.add_task("ml-1m.zip", total=None)
            fetch_movielens(output, url, md5, lambda done, total: bar.update(task, completed=done, total=total))
    except FileExistsError as error:
        _fail(str(error), BAD_INPUT)
    except FetchError as error:
        _fail(str(error), FAILED)
    except OSError as error:
        _fail(f"{output}: cannot be written; {error.strerror}.", FAILED)
    _print_summary(output)


@app.command("credits")
def write_credits(
    links: Annotated[
        Path,
        typer.Option(
            help="links.csv of a MovieLens data set: movieId,imdbId,tmdbId.", metavar="FILE", parser=local_path
        ),
    ],
    imdb: Annotated[
        Path,
        typer.Option(
            help="Folder with IMDb's title.basics, title.crew, title.principals and name.basics, .tsv or .tsv.gz, "
            "from https://datasets.imdbws.com.",
            metavar="DIR",
            parser=local_path,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="File to write; the pipeline reads credits.csv in the folder of movies.dat.",
            metavar="FILE",
            parser=local_path,
        ),
    ],
    movies: Annotated[
        Path | None,
        typer.Option(
            help="Write only the movies that this movies.dat lists.",
            metavar="FILE",
            parser=local_path,
            show_default="movies.dat in the output's folder, if there is one; else all movies of the links",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output file if it exists.")] = False,
) -> None:
    """Write credits.csv, each movie's director and star, from MovieLens's links and IMDb's public tables.

    The director is the first one in title.crew or, if it lists none, the first principal with the category director.
    The star is the first principal who is an actor, an actress or appears as themselves or, if there is none, the first
    who appears in archive footage. A name that cannot be found stays blank.
    The tables have some gigabytes, so they are streamed; the output file appears only once it is complete. IMDb allows
    personal and non-commercial use: https://developer.imdb.com/non-commercial-datasets.
    """
    movies_beside_output = output.parent / MOVIES_FILE
    if movies is None and movies_beside_output.is_file():
        movies = movies_beside_output
    try:
        movie_ids = None if movies is None else read_movie_ids(movies)
        with Progress(*_PROGRESS, console=Console(stderr=True)) as bar:
            tasks: dict[Path, TaskID] = {}

            def show_progress(path: Path, done: int, total: int) -> None:
                if path not in tasks:
                    tasks[path] = bar.add_task(path.name)
                bar.update(tasks[path], completed=done, total=total)

            counts = make_credits(links, imdb, output, movie_ids, force, show_progress)
    except (FileExistsError, DataError) as error:
        _fail(str(error), BAD_INPUT)
    except OSError as error:
        _fail(f"{output}: cannot be written; {error.strerror}.", FAILED)
    _print_counts(str(output), _describe_links(counts))


@app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(help="Folder with users.dat, movies.dat and ratings.dat, or its URI.", parser=data_path)
    ],
) -> None:
    """Check every line of the files in a data folder and show a summary; exits with 2 and counts bad lines if any."""
    _print_summary(folder)


def _print_summary(folder: Path) -> None:
    try:
        summary = summarize(read_movielens(folder))
    except DataError as error:
        _fail(str(error), BAD_INPUT)
    _print_counts(str(folder), _describe(summary))


def _describe(summary: Summary) -> dict[str, str]:
    credits = summary.credits
    coverage: dict[str, str] = {"Credits": "no credits.csv"}
    if credits is not None:
        directors, stars = credits.ratings_with_director, credits.ratings_with_star
        coverage = {
            "Movies with a director": f"{credits.movies_with_director:,} ({directors:.1%} of ratings)",
            "Movies with a star": f"{credits.movies_with_star:,} ({stars:.1%} of ratings)",
        }
    histogram = summary.histogram.items()
    return {
        "Ratings": f"{summary.ratings:,}",
        "Users": f"{summary.users:,}",
        "Movies": f"{summary.movies:,}",
        "Movies with a rating": f"{summary.rated_movies:,}",
        "Rated pairs": f"{summary.density:.2%}",
        "First rating (UTC)": f"{summary.first:%Y-%m-%d %H:%M}",
        "Last rating (UTC)": f"{summary.last:%Y-%m-%d %H:%M}",
        **{f"Ratings of {value}": f"{count:,} ({count / summary.ratings:.1%})" for value, count in histogram},
        **coverage,
    }


def _describe_links(counts: LinkCounts) -> dict[str, str]:
    numbers = {
        "Movies": counts.movies,
        "With a director": counts.with_director,
        "With a star": counts.with_star,
        "Unmatched": counts.unmatched,
        "  without an IMDb id": counts.without_id,
        "  that IMDb does not know": counts.unknown,
        **{f"Not a movie but {name or 'of no type'}": count for name, count in counts.other_types.items()},
    }
    return {name: f"{number:,}" for name, number in numbers.items()}


def _print_counts(title: str, counts: dict[str, str]) -> None:
    table = Table("What", "How many", title=escape(title), title_justify="left")
    table.columns[1].justify = "right"
    for name, count in counts.items():
        table.add_row(name, count)
    Console().print(table)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(f"[red]Error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)
