"""Toy models on disk, and a server in this process that serves them; only these fixtures import TensorFlow."""

import os
import shutil
import time
from pathlib import Path

import pytest

from serving.local.server import ModelServer, ServerConfig


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory) -> Path:
    """A folder with recommender/1 and ranking/7, shared by all tests: those that change models use a copy."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from tests.serving.toy_models import save_ranker, save_recommender

    root = tmp_path_factory.mktemp("models")
    save_recommender(root / "recommender" / "1")
    save_ranker(root / "ranking" / "7")
    return root


@pytest.fixture(scope="session")
def second_version(tmp_path_factory, toy_models) -> Path:
    """Version 2 of the recommender, whose predicted ratings are higher by 2."""
    from tests.serving.toy_models import save_recommender

    return save_recommender(tmp_path_factory.mktemp("second") / "2", bonus=2.0)


@pytest.fixture(scope="session")
def server(toy_models):
    with ModelServer(ServerConfig(toy_models, port=0, rest_port=0, poll_seconds=0.1, settle_seconds=0.1)) as server:
        yield server


@pytest.fixture
def changing_models(tmp_path, toy_models) -> Path:
    root = tmp_path / "models"
    shutil.copytree(toy_models / "recommender", root / "recommender")
    return root


@pytest.fixture
def changing_server(changing_models):
    config = ServerConfig(changing_models, port=0, rest_port=0, poll_seconds=0.05, settle_seconds=0.05)
    with ModelServer(config) as server:
        yield server


@pytest.fixture
def eventually():
    """A function that waits until a condition holds."""

    def wait(condition, seconds=20.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"should have come true within {seconds} s"
            time.sleep(0.02)

    return wait
