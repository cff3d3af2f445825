"""A running server picks up new models and versions, and never serves a half-copied or broken one."""

import shutil
import threading

import grpc
import pytest

from serving.client import RecommenderClient

pytestmark = pytest.mark.serving


@pytest.fixture
def client(changing_server):
    with RecommenderClient(port=changing_server.rest_port, transport="rest") as client:
        yield client


def rating(client):
    return client.recommend(k=1)[0].predicted_rating


def settle_and_poll(server):
    """Waits until the files count as settled, and lets the server look at its folder."""
    threading.Event().wait(3 * server.config.settle_seconds)
    server.store.poll()


def test_a_new_version_is_picked_up_without_a_failed_call(
    changing_server, changing_models, client, second_version, eventually
):
    stop, answers, errors = threading.Event(), [], []

    def keep_asking():
        with RecommenderClient(port=changing_server.rest_port, transport="rest", attempts=1) as own:
            while not stop.is_set():
                try:
                    answers.append(rating(own))
                except Exception as error:
                    errors.append(error)

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(answers) > 20)
        shutil.copytree(second_version, changing_models / "recommender" / "2")
        eventually(lambda: changing_server.store.served() == {"recommender": 2})
        eventually(lambda: answers[-1] == 2.0)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert set(answers) == {0.0, 2.0}
    states = {status.version: status.state for status in changing_server.store.status("recommender")}
    assert states == {1: "END", 2: "AVAILABLE"}


def without_saved_model(path):
    (path / "saved_model.pb").unlink()


def truncated_saved_model(path):
    content = (path / "saved_model.pb").read_bytes()
    (path / "saved_model.pb").write_bytes(content[: len(content) // 2])


def without_variables(path):
    shutil.rmtree(path / "variables")


def truncated_variables(path):
    (file,) = (path / "variables").glob("*.data-*")
    file.write_bytes(file.read_bytes()[:2])


@pytest.mark.parametrize("damage", [without_saved_model, truncated_saved_model, without_variables, truncated_variables])
def test_a_half_copied_version_is_never_served(
    changing_server, changing_models, client, second_version, damage, tmp_path
):
    half = shutil.copytree(second_version, tmp_path / "half")
    damage(half)
    version = changing_models / "recommender" / "2"
    half.rename(version)
    settle_and_poll(changing_server)
    assert changing_server.store.served() == {"recommender": 1}
    assert rating(client) == 0.0
    for status in changing_server.store.status("recommender"):
        assert status.state == ("AVAILABLE" if status.version == 1 else "END")
        assert (status.code == grpc.StatusCode.OK) == (status.version == 1)

    # The rest of the version is copied.
    shutil.copytree(second_version, version, dirs_exist_ok=True)
    settle_and_poll(changing_server)
    assert rating(client) == 2.0


def test_a_temporary_directory_is_never_served(changing_server, changing_models, second_version):
    shutil.copytree(second_version, changing_models / "recommender" / ".2.tmp")
    shutil.copytree(second_version, changing_models / ".recommender" / "2")
    settle_and_poll(changing_server)
    assert changing_server.store.served() == {"recommender": 1}


def test_a_new_model_is_picked_up(changing_server, changing_models, toy_models):
    shutil.copytree(toy_models / "ranking", changing_models / "ranking")
    settle_and_poll(changing_server)
    assert changing_server.store.served() == {"ranking": 7, "recommender": 1}
