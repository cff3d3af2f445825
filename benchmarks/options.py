"""Command line options that the benchmarks share, and functions that parse lists in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from pipeline.paths import artifact_path, local_path
from trainers.hyperparameters import MAX_SEED

DataFolder: TypeAlias = Annotated[
    Path,
    typer.Option(
        help="Folder with ratings.dat, users.dat, movies.dat and, optionally, credits.",
        metavar="DIR",
        parser=local_path,
    ),
]
CacheFolder: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--cache",
        help="Cache folder for transformed data (1 GB per split) and results.",
        metavar="DIR",
        parser=artifact_path,
    ),
]
Seeds: TypeAlias = Annotated[str, typer.Option(help="Seeds of the split and of the models, separated by commas.")]
Preset: TypeAlias = Annotated[
    str, typer.Option("--config", help="Preset or YAML file that configures the measured models.")
]
Overrides: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", help="Replace a setting, as in models.dcn.dropout=0.3. Repeatable.")
]
JsonPath: TypeAlias = Annotated[
    Path | None, typer.Option("--json", help="File to write the results to.", metavar="FILE", parser=local_path)
]


def parse_seeds(text: str) -> list[int]:
    """Parses seeds, separated by commas: different numbers from 0 that models take too."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) > MAX_SEED or len(set(seeds)) < len(seeds):
        raise typer.BadParameter(f"should be different numbers from 0 to {MAX_SEED}, as in 0,1,2; received {text!r}.")
    return seeds


def parse_names(text: str, known: Mapping[str, Any]) -> list[str]:
    """Parses names, separated by commas; rejects names that are not in `known` or are there twice."""
    wanted = [name for name in text.split(",") if name]
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(f"should be among {', '.join(known)}; received {name!r}.")
    if len(set(wanted)) < len(wanted):
        raise typer.BadParameter(f"should name each once; received {text!r}.")
    return wanted
