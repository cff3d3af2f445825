"""Replicas against a single device, on two devices of one process and in two processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.planted_splits import planted_splits
from trainers.datasets import batches, replica_batches
from trainers.loop import distribution

WORKER = Path(__file__).with_name("distributed_worker.py")
ROOT = Path(__file__).parents[3]
# Together they are made of every layer that there is, and have every kind of penalty and constraint.
MODELS = ("like", "joint", "sequence")
ACROSS_WORKERS = "like"


def start(models: str, distributed: str, folder: Path, devices: int = 1, **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(WORKER), models, distributed, str(folder), str(devices)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of what each way of training left; all are trained at the same time."""
    folder = tmp_path_factory.mktemp("trained")
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    tasks = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(2)]
    processes = [
        start(",".join(MODELS), "none", folder / "none"),
        start(",".join(MODELS), "mirrored", folder / "mirrored", devices=2),
        *(start(ACROSS_WORKERS, "multi_worker", folder / "multi_worker", TF_CONFIG=task) for task in tasks),
    ]
    try:
        for process in processes:
            # Only a worker that waits for another without end takes as long, also beside other programs.
            output, _ = process.communicate(timeout=540)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return folder


def weights(folder: Path, index: int = 0) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"weights-{index}.npz"))


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=1e-4, err_msg=name)


@pytest.mark.component
class TestTraining:
    @pytest.mark.parametrize("model", MODELS)
    def test_two_devices_learn_what_one_does(self, trained, model):
        assert_close(weights(trained / "mirrored" / model), weights(trained / "none" / model))

    def test_two_workers_learn_what_one_does_and_end_alike(self, trained):
        folder = trained / "multi_worker" / ACROSS_WORKERS
        chief, other = weights(folder), weights(folder, index=1)
        assert_close(chief, weights(trained / "none" / ACROSS_WORKERS))
        for name, value in chief.items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)

    def test_bounds_on_weights_hold(self, trained):
        for way in ("none", "mirrored", "multi_worker"):
            kernel = weights(trained / way / ACROSS_WORKERS)["_deep._layers.0.kernel"]
            # Without the bound they are beyond it from the beginning.
            assert np.linalg.norm(kernel, axis=0).max() == pytest.approx(0.5, rel=1e-4)

    def test_the_chief_alone_leaves_outputs(self, trained):
        folder = trained / "multi_worker" / ACROSS_WORKERS
        assert {path.name for path in folder.iterdir()} == {"model", "logs", "weights-0.npz", "weights-1.npz"}
        assert len(list((folder / "logs").iterdir())) == 1

    @pytest.mark.parametrize("way", ["mirrored", "multi_worker"])
    def test_what_is_exported_serves_as_if_it_had_not_been_distributed(self, trained, way):
        rows = [
            tf.train.Example(
                features=tf.train.Features(
                    feature={"user_id_xf": tf.train.Feature(int64_list=tf.train.Int64List(value=[user]))}
                )
            ).SerializeToString()
            for user in range(1, 10)
        ]
        predicted = [
            tf.saved_model.load(str(trained / each / ACROSS_WORKERS / "model")).signatures["serving_default"](
                tf.constant(rows)
            )
            for each in ("none", way)
        ]
        expected, got = (answer["like_probability"].numpy() for answer in predicted)
        assert len(np.unique(expected)) > 1
        np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("replica_count", [1, 2, 3])
def test_replicas_are_dealt_every_row_once_and_weigh_it_alike(replica_count):
    arrays = {"x": np.arange(13)}
    hands = list(replica_batches(arrays, 4, 0, range(replica_count), replica_count).as_numpy_iterator())
    steps = [hands[first : first + replica_count] for first in range(0, len(hands), replica_count)]
    whole = [batch["x"] for batch in batches(arrays, 4, shuffle_seed=0).as_numpy_iterator()]
    assert len(steps) == len(whole) == 4
    for step, rows in zip(steps, whole, strict=True):
        # The last batch has one row: not enough for all.
        assert sorted(x for hand, share in step if share for x in hand["x"]) == sorted(rows)
        assert all(len(hand["x"]) for hand, _ in step)
        assert sum(share * hand["x"].mean() for hand, share in step) == pytest.approx(rows.mean())


def test_workers_deal_out_the_same_batches():
    arrays = planted_splits(users=20, movies=10, ratings=90, seed=0).train
    together = replica_batches(arrays, 20, 3, range(2), 2)
    apart = [
        list(replica_batches(arrays, 20, 3, range(replica, replica + 1), 2).as_numpy_iterator()) for replica in range(2)
    ]
    for place, (rows, share) in enumerate(together.as_numpy_iterator()):
        got, weight = apart[place % 2][place // 2]
        assert weight == share
        np.testing.assert_array_equal(got["movie_id_xf"], rows["movie_id_xf"])


@pytest.mark.parametrize("text", ["", "worker 0", "[]", "{}", '{"cluster": {"worker": ["localhost:1"]}}'])
def test_workers_have_to_be_named(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG should hold the cluster and this worker's task") as caught:
        distribution.strategy_of("multi_worker")
    assert f"received {text!r}" in str(caught.value)


def test_no_distribution_is_the_default_strategy():
    assert distribution.strategy_of("none") is tf.distribute.get_strategy()
    assert not tf.distribute.has_strategy()
