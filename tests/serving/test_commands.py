"""`movielens serve` serves until it is stopped, `movielens recommend` prints movies; both report errors in one line."""

import base64
import http.server
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

import pipeline
from pipeline.cli import app


def movielens(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def single_line(result, code):
    """The output of a command, checked to be one line with the given exit code."""
    assert result.exit_code == code, result.output
    assert result.output.count("\n") == 1, result.output
    return result.output


@pytest.mark.parametrize("command", ["serve", "recommend"])
def test_help_names_every_option(command):
    result = movielens(command, "--help")
    assert result.exit_code == 0
    options = {
        "serve": ["--models", "--host", "--port", "--rest-port"],
        "recommend": [
            *("--user", "--history", "--ratings", "--timestamps", "--now", "--gender", "--age", "--occupation"),
            *("--zip-code", "--exclude", "--k", "--host", "--port", "--deadline", "--rest", "--json"),
        ],
    }
    for option in options[command]:
        assert option in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--user", "--history", "--gender", "--age", "--occupation", "--zip-code"]),
        (["--exclude", "1", "--now", "0"], ["--user", "--history", "--gender"]),
        (["--user", "0"], ["--user", "0"]),
        (["--user", "1", "--ratings", "5"], ["--ratings", "--history"]),
        (["--history", "1,two"], ["--history", "'two'"]),
        (["--history", "1,-2"], ["positive", "-2"]),
        (["--history", "1,2", "--ratings", "5"], ["each of the 2", "1"]),
        (["--history", "1", "--ratings", "good"], ["--ratings", "'good'"]),
        (["--history", "1", "--ratings", "7"], ["1 to 5", "7"]),
        (["--history", "1", "--ratings", "nan"], ["1 to 5", "nan"]),
        (["--history", "1.7"], ["--history", "'1.7'"]),
        (["--history", "1_0"], ["--history", "'1_0'"]),
        (["--history", ""], ["--history", "''"]),
        (["--history", "99999999999999999999"], ["history", "below 2**63", "99999999999999999999"]),
        (["--user", "99999999999999999999"], ["--user", "below 2**63", "99999999999999999999"]),
        (["--user", "1", "--timestamps", "5"], ["--timestamps", "--history", "'5'"]),
        (["--history", "1,2", "--timestamps", "5"], ["timestamps", "each of the 2", "1"]),
        (["--history", "1", "--timestamps", "yesterday"], ["--timestamps", "'yesterday'"]),
        (["--history", "1,2", "--timestamps", "5,"], ["--timestamps", "''"]),
        (["--history", "1", "--timestamps", "-5"], ["--timestamps", "'-5'"]),
        (["--history", "1", "--timestamps", "978300760000"], ["timestamps", "year 10000", "978300760000"]),
        (["--user", "1", "--now", "-5"], ["--now", "'-5'"]),
        (["--user", "1", "--now", "1e9"], ["--now", "'1e9'"]),
        (["--user", "1", "--now", ""], ["--now", "''"]),
        (["--user", "1", "--now", "2003-02-30"], ["--now", "'2003-02-30'"]),
        (["--user", "1", "--now", "20030228"], ["--now", "like 2003-02-28", "'20030228'"]),
        (["--user", "1", "--now", "2003"], ["--now", "like 2003-02-28", "'2003'"]),
        (["--user", "1", "--now", "1969-12-31T23:59:59.9"], ["--now", "before 1970", "'1969-12-31T23:59:59.9'"]),
        (["--user", "1", "--now", "0001-01-01T00:00+23:00"], ["--now", "before 1970"]),
        (["--user", "1", "--now", "\udcff"], ["--now", r"'\udcff'"]),
        (["--user", "1", "--now", "1046454540000"], ["now", "seconds", "year 10000", "1046454540000"]),
        (["--age", "0"], ["--age", "1 to 150", "'0'"]),
        (["--age", "151"], ["--age", "1 to 150", "'151'"]),
        (["--age", "young"], ["--age", "'young'"]),
        (["--age", "25.5"], ["--age", "'25.5'"]),
        (["--occupation", "-1"], ["--occupation", "0 to 20", "'-1'"]),
        (["--occupation", "21"], ["--occupation", "0 to 20", "'21'"]),
        (["--occupation", "writer"], ["--occupation", "'writer'"]),
        (["--zip-code", ""], ["--zip-code", "''"]),
        (["--zip-code", "\udcff"], ["zip_code", r"'\udcff'"]),
        (["--user", "1", "--exclude", "two"], ["--exclude", "'two'"]),
        (["--user", "1", "--exclude", ""], ["--exclude", "''"]),
        (["--user", "1", "--exclude", "1,0"], ["exclude", "positive", "0"]),
        (["--user", "1", "-k", 2**63], ["k", "below 2**63", "9223372036854775808"]),
        (["--user", "1", "--deadline", "0"], ["deadline", "more than 0", "0"]),
        (["--user", "1", "--deadline", "nan"], ["deadline", "nan"]),
        (["--user", "1", "--host", "http://127.0.0.1"], ["host", "'http://127.0.0.1'"]),
    ],
)
def test_recommend_refuses_invalid_options(options, words):
    output = single_line(movielens("recommend", "--rest", *options), 2)
    for word in words:
        assert word in output


@pytest.mark.parametrize("gender", ["X", "f", "MF"])
def test_recommend_refuses_another_gender(gender):
    result = movielens("recommend", "--rest", "--gender", gender)
    assert result.exit_code == 2
    assert "--gender" in result.output
    assert f"'{gender}'" in result.output


def answering(requests):
    """A server that keeps the inputs of requests, and recommends nothing."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"])
            columns = ("movie_id", "title", "predicted_rating", "retrieval_score")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"outputs": {key: [[]] for key in columns}}).encode())

        def log_message(self, format, *args):
            pass

    return http.server.HTTPServer(("127.0.0.1", 0), Answer)


def asked(*options):
    """What `movielens recommend` sends, by input name, as lists of numbers and bytes objects."""
    requests: list[dict[str, list]] = []
    with answering(requests) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        result = movielens("recommend", "--rest", "--json", "--port", server.server_port, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == []
    (inputs,) = requests
    for name in ("gender", "zip_code"):
        inputs[name] = [base64.b64decode(value["b64"]) for value in inputs[name]]
    return inputs


def test_recommend_sends_what_it_is_told():
    assert asked(
        *("--user", 7, "--history", "1,260", "--ratings", "5,0", "--timestamps", "978300760,2000-12-31T22:12:41"),
        *("--now", "2003-02-28T17:49", "--gender", "F", "--age", 25, "--occupation", 20, "--zip-code", "02139"),
        *("--exclude", "3,4", "-k", 5),
    ) == {
        "user_id": [7],
        "history_movie_ids": [[1, 260]],
        "history_ratings": [[5.0, 0.0]],
        "history_timestamps": [[978300760, 978300761]],
        "now": [1046454540],
        "gender": [b"F"],
        "age": [25],
        "occupation": [20],
        "zip_code": [b"02139"],
        "exclude_movie_ids": [[3, 4]],
        "k": [5],
    }


@pytest.mark.parametrize(
    ("option", "value", "name", "sent"),
    [
        ("--gender", "M", "gender", b"M"),
        ("--age", 25, "age", 25),
        ("--occupation", 0, "occupation", 0),
        ("--zip-code", "55117", "zip_code", b"55117"),
    ],
)
def test_one_thing_that_is_known_of_a_person_is_enough(option, value, name, sent):
    inputs = asked(option, value)
    assert inputs[name] == [sent]
    assert inputs["user_id"] == [0]
    assert inputs["history_movie_ids"] == inputs["history_ratings"] == inputs["exclude_movie_ids"] == [[]]
    assert abs(inputs["now"][0] - time.time()) < 600


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ("0", 0),
        ("1046454540", 1046454540),
        (" 1046454540 ", 1046454540),
        ("2003-02-28", 1046390400),
        ("2003-02-28 17:49", 1046454540),
        ("2003-02-28T17:49:00.9", 1046454540),
        ("2003-02-28T17:49Z", 1046454540),
        ("2003-02-28T19:49+02:00", 1046454540),
    ],
)
def test_recommend_takes_moments_in_seconds_or_as_dates(now, seconds, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert asked("--user", 1, "--now", now)["now"] == [seconds]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_serve_refuses_a_folder_without_models(tmp_path):
    assert "no such folder" in single_line(movielens("serve", "--models", tmp_path / "nowhere"), 2)
    (tmp_path / "ranking" / "1").mkdir(parents=True)
    assert "NAME/VERSION/saved_model.pb" in single_line(movielens("serve", "--models", tmp_path), 2)


@pytest.fixture
def restored_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("option", ["--port", "--rest-port"])
@pytest.mark.usefixtures("restored_logging")
def test_serve_refuses_a_port_in_use(tmp_path, option):
    (tmp_path / "ranking" / "1").mkdir(parents=True)
    (tmp_path / "ranking" / "1" / "saved_model.pb").write_bytes(b"x")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = "--rest-port" if option == "--port" else "--port"
        result = movielens("serve", "--models", tmp_path, option, port, other, 0)
    assert f"127.0.0.1:{port}: the port is in use" in single_line(result, 2)


@pytest.mark.serving
@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_recommend_prints_a_table_or_json(server, transport):
    connection = ["--port", server.port] if transport == "grpc" else ["--port", server.rest_port, "--rest"]
    result = movielens("recommend", "--user", 7, "--k", 3, *connection)
    assert result.exit_code == 0, result.output
    rows = re.findall(r"(\d) +│ Movie é (\d) +│ +(\d\.\d\d)", result.output)
    assert rows == [("1", "6", "0.07"), ("2", "5", "0.07"), ("3", "4", "0.07")]

    result = movielens("recommend", "--history", "6,4", "--ratings", "5,1", "-k", 2, "--json", *connection)
    assert result.exit_code == 0, result.output
    movies = json.loads(result.stdout)
    assert [(movie["movie_id"], movie["title"]) for movie in movies] == [(5, "Movie é 5"), (3, "Movie é 3")]
    assert movies[0]["predicted_rating"] == pytest.approx(0.006, rel=1e-4)
    assert movies[0]["retrieval_score"] == 5.0

    result = movielens("recommend", "--gender", "F", "--age", 25, "--exclude", "5,1", "-k", 99, "--json", *connection)
    assert result.exit_code == 0, result.output
    assert [movie["movie_id"] for movie in json.loads(result.stdout)] == [6, 4, 3, 2]


@pytest.mark.serving
def test_recommend_reports_that_no_server_answers():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        output = single_line(movielens("recommend", "--user", 7, "--port", port), 1)
    assert f"127.0.0.1:{port}" in output


@pytest.mark.serving
@pytest.mark.parametrize("options", [[], ["--rest"]])
def test_recommend_reports_a_host_that_does_not_exist(options):
    output = single_line(movielens("recommend", "--user", 7, "--host", "nosuchhost.invalid", *options), 1)
    assert "nosuchhost.invalid" in output
    assert "is not found" in output


@pytest.mark.serving
def test_recommend_reports_the_port_of_the_other_protocol(server):
    output = single_line(movielens("recommend", "--user", 7, "--port", server.rest_port), 1)
    assert f"127.0.0.1:{server.rest_port}" in output
    assert "REST" in output
    output = single_line(movielens("recommend", "--user", 7, "--port", server.port, "--rest"), 1)
    assert f"127.0.0.1:{server.port}" in output
    assert "gRPC port" in output


def test_recommend_shows_what_a_server_says_in_one_line():
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(400)
            self.end_headers()
            self.wfile.write(b'{"error": "first\\n  second"}')

        def log_message(self, format, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        result = movielens("recommend", "--user", 7, "--rest", "--port", server.server_port)
    assert "refused (400): first second" in single_line(result, 1)


@pytest.mark.serving
@pytest.mark.parametrize("options", [[], ["--rest"]])
def test_recommend_waits_no_longer_than_its_deadline(options):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        output = single_line(movielens("recommend", "--user", 7, "--port", port, "--deadline", 0.3, *options), 1)
    assert "within 0.3 s" in output


@pytest.mark.serving
def test_serve_answers_until_it_is_terminated(toy_models):
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "serve", "--models", str(toy_models)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--rest-port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        lines: list[str] = []
        while not (match := re.search(r"gRPC on 127.0.0.1:(\d+), REST on http://127.0.0.1:(\d+)", "".join(lines))):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            lines.append(line)
        table = "".join(lines)
        assert re.search(r"ranking +│ 7", table)
        assert re.search(r"recommender +│ 1", table)
        assert requests.get(f"http://127.0.0.1:{match[2]}/v1/models/ranking", timeout=20).ok
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_tensorflow_is_imported_without_output_unless_it_fails(tmp_path):
    (tmp_path / "tensorflow.py").write_text("import os, sys\nos.write(2, b'a note')\nexec(os.environ['THEN'])\n")
    code = (
        "import os; from pipeline.local.quiet_tensorflow import import_tensorflow_quietly as quietly\n"
        "quietly(); os.write(2, b'after')"
    )
    project = Path(pipeline.__file__).parents[1]

    def stderr_of(then):
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{project}", "THEN": then}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stderr

    assert stderr_of("class config: list_physical_devices = print") == "after"
    failed = stderr_of("raise ImportError('libtensorflow is damaged')")
    assert failed.startswith("a note")
    assert "libtensorflow is damaged" in failed
