"""Measures the local server: answers over REST beside gRPC, and the longest wait while a new version loads."""

import json
import math
import shutil
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import tensorflow as tf
import typer
from rich.console import Console
from rich.table import Table
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.report import machine
from pipeline.paths import local_path
from serving.client import RecommenderClient
from serving.local.server import running_server
from serving.local.versions import list_versions

_PAUSE_SECONDS = 0.02  # Between two calls, while a version loads.
_LOADING_SECONDS = 15.0


def main(
    models: Annotated[
        Path,
        typer.Option(help="Folder of pushed models, such as output/ml1m/serving.", metavar="DIR", parser=local_path),
    ],
    people: Annotated[
        str, typer.Option(help="Numbers of people to ask for in one call, separated by commas.")
    ] = "1,64",
    rounds: Annotated[int, typer.Option(min=1, help="Calls over each protocol, in turns.")] = 50,
) -> None:
    """Serves a copy of the models and asks the recommender, over both protocols in turns; prints Markdown tables."""
    console = Console(width=200)
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(models, Path(folder) / "serving")
        with running_server(copy) as (port, rest_port):
            answers = Table("people in a call", "gRPC", "REST", "REST / gRPC", box=None)
            for count in (int(number) for number in people.split(",")):
                seconds = paired_seconds([_ask_grpc(port, count), _ask_rest(rest_port, count)], rounds)
                answers.add_row(str(count), *_milliseconds(seconds), f"{ratio(seconds[1], seconds[0]):.2f}")
            console.print(machine(), answers)
            loading = Table("a new version of", "longest wait over gRPC", box=None)
            for model in sorted(path.name for path in copy.iterdir()):
                loading.add_row(model, f"{1e3 * longest_wait(copy / model, port):.0f} ms")
            console.print(loading)


def paired_seconds(calls: Sequence[Callable[[], object]], rounds: int, in_a_row: int = 1) -> list[list[float]]:
    """Times calls in turns, so that whatever else the machine does falls on all of them; the first turn is left out.

    Args:
      calls: what to time.
      rounds: number of times for each, rounded up to whole turns.
      in_a_row: how often each is called in its turn. With 1, each call finds the data of the others in the processor's
        caches, and pays for its own.

    Returns:
      Seconds of each call, [calls, rounds].
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(math.ceil(rounds / in_a_row) + 1):
        for call, times in zip(calls, seconds, strict=True):
            for _ in range(in_a_row):
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
    return [times[in_a_row:] for times in seconds]


def ratio(seconds: list[float], base: list[float]) -> float:
    """Median over the rounds of one call's seconds divided by the other's."""
    return statistics.median(one / other for one, other in zip(seconds, base, strict=True))


def longest_wait(model: Path, port: int) -> float:
    """Asks the recommender all the time while a copy of a model's newest version is loaded as a new one.

    Args:
      model: folder of the model, inside the folder that the server serves.
      port: the server's gRPC port.

    Returns:
      Seconds of the slowest call.
    """
    newest = list_versions(model, settle_seconds=0)[0]
    end = threading.Event()
    waits = []

    def ask() -> None:
        with RecommenderClient(port=port, deadline_seconds=60) as client:
            while not end.is_set():
                start = time.perf_counter()
                client.recommend(k=1)
                waits.append(time.perf_counter() - start)
                time.sleep(_PAUSE_SECONDS)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        hidden = shutil.copytree(newest.path, model / ".new")
        hidden.rename(model / str(newest.version + 1))
        with RecommenderClient(port=port, model=model.name) as client:
            deadline = time.monotonic() + 4 * _LOADING_SECONDS
            while client.wait_until_available(_LOADING_SECONDS) == newest.version and time.monotonic() < deadline:
                time.sleep(_PAUSE_SECONDS)
    finally:
        end.set()
        thread.join()
    return max(waits)


def _ask_grpc(port: int, count: int) -> Callable[[], object]:
    predict = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}")).Predict
    request = predict_pb2.PredictRequest(
        model_spec={"name": "recommender"},
        inputs={
            "user_id": tf.make_tensor_proto(np.arange(1, count + 1)),
            "history_movie_ids": tf.make_tensor_proto(np.zeros([count, 0], np.int64)),
            "history_ratings": tf.make_tensor_proto(np.zeros([count, 0], np.float32)),
        },
    )
    return lambda: predict(request)


def _ask_rest(port: int, count: int) -> Callable[[], object]:
    rows = [{"user_id": user, "history_movie_ids": [], "history_ratings": []} for user in range(1, count + 1)]
    body = json.dumps({"instances": rows}).encode()
    url = f"http://127.0.0.1:{port}/v1/models/recommender:predict"

    def ask() -> bytes:
        with urllib.request.urlopen(urllib.request.Request(url, body)) as response:
            return response.read()

    return ask


def _milliseconds(seconds: list[list[float]]) -> list[str]:
    return [f"{1e3 * statistics.median(times):.1f} ms" for times in seconds]


if __name__ == "__main__":
    typer.run(main)
