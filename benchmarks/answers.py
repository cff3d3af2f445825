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
) -> None:
    """Asks the newest version for one person, then for a batch, and prints a Markdown table.

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
            paired_seconds([_asker(model, count) for model in loaded.values()], rounds, _IN_A_ROW),
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
    large = min(_LARGE, int(loaded["now"].max_batch))
    peak, kept = _memory(_asker(loaded["now"], large))
    console.print(
        f"A batch of {large} takes {peak:.0f} MB at most beside what was held, of which {kept:.0f} MB are kept."
    )


def _asker(model: tf.Module, count: int) -> Callable[[], object]:
    """A function that asks for `count` people, others at each call, until it begins anew."""
    # There is one offset more than there are users, and one user more than are known.
    serve, users = model.signatures["serving_default"], len(model.seen_offsets.numpy()) - 2
    rng = np.random.default_rng(0)
    requests = [
        {
            "user_id": tf.constant(rng.integers(1, users + 1, count)),
            "history_movie_ids": tf.zeros([count, 0], tf.int64),
            "history_ratings": tf.zeros([count, 0]),
        }
        for _ in range(_REQUESTS)
    ]
    turns = itertools.cycle(requests)
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
