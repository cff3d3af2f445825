"""A server in a child process ends with its parent, and reports why it cannot start."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from serving.__main__ import main
from serving.client import RecommenderClient
from serving.local.server import ServerFailed, running_server

pytestmark = pytest.mark.serving


def is_closed(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_running_server_answers_and_ends_with_the_block_even_on_an_error(toy_models):
    answers: list[list[int]] = []
    ports: list[int] = []

    def ask_and_fail():
        with running_server(toy_models) as both_ports:
            ports.extend(both_ports)
            clients = RecommenderClient(port=both_ports[0]), RecommenderClient(port=both_ports[1], transport="rest")
            for client in clients:
                with client:
                    answers.append([movie.movie_id for movie in client.recommend(history=[6], k=2)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask_and_fail()
    assert answers == [[5, 4], [5, 4]]
    assert len(ports) == 2
    assert all(is_closed(port) for port in ports)


def test_the_server_ends_when_its_parent_is_killed(toy_models, eventually):
    code = (
        "import sys, time; from pathlib import Path; from serving.local.child import running_server\n"
        "with running_server(Path(sys.argv[1])) as ports:\n"
        "    print(*ports, flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(toy_models)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        ports = [int(port) for port in parent.stdout.readline().split()]
        assert len(ports) == 2
        assert not any(is_closed(port) for port in ports)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    eventually(lambda: all(is_closed(port) for port in ports))


def test_a_folder_without_models_fails_with_a_reason(tmp_path):
    with (
        pytest.raises(ServerFailed, match=r"should hold models as NAME/VERSION/saved_model.pb"),
        running_server(tmp_path),
    ):
        pytest.fail("no server should run")


def test_a_folder_with_only_broken_models_ends_with_a_reason(tmp_path, monkeypatch, caplog):
    (tmp_path / "ranking" / "1").mkdir(parents=True)
    (tmp_path / "ranking" / "1" / "saved_model.pb").write_bytes(b"not a model")
    monkeypatch.setattr(sys, "argv", ["serving", "--models", str(tmp_path)])
    assert main() == 1
    assert "ranking version 1 cannot be loaded" in caplog.text


def test_a_server_that_is_not_ready_in_time_fails_with_a_reason(toy_models):
    with pytest.raises(ServerFailed, match=r"ready within 0 s"), running_server(toy_models, timeout_seconds=0.1):
        pytest.fail("no server should run")
