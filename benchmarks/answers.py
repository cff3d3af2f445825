"""Measures the recommender in this process: seconds of an answer, answers a second in batches, and memory."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import tensorflow as tf
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.report import machine
from benchmarks.serving import paired_seconds, ratio
from pipeline.paths import local_path
from serving.local.versions import list_versions

_LARGE = 1000  # People in the batch whose memory is measured.
_NOW = 1_000_000_000  # Seconds since 1970, in 2001.
_REQUESTS = 500  # Different ones.
_IN_A_ROW = 20  # A server answers with one recommender, so each is asked several times before the other one is.


def main(
    models: Annotated[
        Path,
        typer.Option(help="Folder of the pushed recommender's versions.", metavar="DIR", parser=local_path),
    ],
    before: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an earlier recommender's versions, to be asked in turns.", metavar="DIR", parser=local_path
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=2, help="People in a batch.")] = 64,
    rounds: Annotated[int, typer.Option(min=3, help="Times that each call is made.")] = 200,
    history: Annotated[
        int,
        typer.Option(
            min=0, max=1000, help="Movies that each person claims to have rated, the last one right now; 0 for none."
        ),
    ] = 0,
) -> None:
    """Asks the newest version for one person, then for a batch, and prints a Markdown table.

    People are known, and tell nothing of themselves unless `--history` says so. What is stored of somebody is computed
    at export, what they tell is not.

    An earlier recommender is asked in turns of 20 calls. The medians are over all calls; each asks for other people,
    with tensors that were made before. Memory is the process's resident memory.
    """
    console = Console(width=200, highlight=False)
    console.print("Machine: " + ", ".join(f"{key} {value}" for key, value in machine().items()) + ".")
    recommenders = {"now": models} | ({"before": before} if before else {})
    loaded = {
        title: tf.saved_model.load(list_versions(path, settle_seconds=0)[0].path)
        for title, path in recommenders.items()
    }
    # One after the other, as a large batch leaves little of what the next single answer finds in the processor's cache.
    seconds = {
        (title, count): times
        for count in (1, batch)
        for title, times in zip(
            loaded,
            paired_seconds([_asker(model, count, history) for model in loaded.values()], rounds, _IN_A_ROW),
            strict=True,
        )
    }
    table = Table(
        "recommender",
        "one answer, p50",
        "p95",
        f"batch of {batch}, p50",
        "answers a second: times as many",
        box=box.MARKDOWN,
    )
    for title in recommenders:
        one, many = seconds[title, 1], seconds[title, batch]
        table.add_row(
            title,
            *(f"{1e3 * np.quantile(one, share):.2f} ms" for share in (0.5, 0.95)),
            f"{1e3 * np.median(many):.1f} ms",
            f"{batch * np.median(one) / np.median(many):.1f}",
        )
    console.print(table)
    if before:
        console.print(f"One answer takes {ratio(seconds['now', 1], seconds['before', 1]):.2f} of the time before.")
    # No more people than may ask at once, with all that they tell.
    large = min(_LARGE, int(loaded["now"].max_batch), int(loaded["now"].max_values) // max(history, 1))
    peak, kept = _memory(_asker(loaded["now"], large, history, requests=1))
    console.print(
        f"A batch of {large} takes {peak:.0f} MB at most beside what was held, of which {kept:.0f} MB are kept."
    )


def _asker(model: tf.Module, count: int, history: int, requests: int = _REQUESTS) -> Callable[[], object]:
    """A function that asks for `count` people, others at each call, until it begins anew."""
    # There is one offset more than there are users, and one user more than are known.
    users, movies = len(model.seen_offsets.numpy()) - 2, model.movie_ids.numpy()
    serve, movies = model.signatures["recommend" if history else "serving_default"], movies[movies > 0]
    rng = np.random.default_rng(0)
    made = []
    for _ in range(requests):
        request = {
            "user_id": rng.integers(1, users + 1, count),
            "history_movie_ids": rng.choice(movies, [count, history]),
            "history_ratings": rng.integers(1, 6, [count, history]).astype(np.float32),
        }
        if history:
            zeros, nothing = np.zeros(count, np.int64), np.full(count, "")
            times = _NOW - 20 * np.arange(history)[::-1]
            request |= {"now": zeros + _NOW, "age": zeros, "occupation": zeros, "k": zeros}
            request |= {"gender": nothing, "zip_code": nothing, "exclude_movie_ids": np.zeros([count, 0], np.int64)}
            request["history_timestamps"] = np.repeat(times[np.newaxis], count, axis=0)
        made.append({name: tf.constant(values) for name, values in request.items()})
    turns = itertools.cycle(made)
    return lambda: serve(**next(turns))["movie_id"].numpy()


def _memory(ask: Callable[[], object]) -> tuple[float, float]:
    """Megabytes that a call takes at most, and that are kept after it, beside what the process held before."""
    held = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # The peak, VmHWM, begins anew (Linux: man 5 proc_pid_clear_refs).
    ask()
    return _status("VmHWM") - held, _status("VmRSS") - held


def _status(field: str) -> float:
    """A field of this process's status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1000


if __name__ == "__main__":
    typer.run(main)
