"""Downloads resume, have their MD5 checked, and appear whole or not at all; a local server simulates the failures."""

import hashlib
import io
import signal
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.data.fetch import MD5, FetchError, fetch_movielens, part_file
from components.data.raw_files import read_movielens


class Server(ThreadingHTTPServer):
    """Serves `content`, and fails in the ways that its attributes set.

    Attributes:
      content: the file to serve.
      stop_after: number of body bytes after which the server stops sending; None to send all.
      stall: whether the connection then stays open, without another byte, until the server ends.
      ended: set when the server ends.
      ranges: whether the server honours the Range header.
      status: HTTP status of every response; None for the correct one.
      requested: the Range header of each request; None for a request without one.
      sent: total number of body bytes sent.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = b""
        self.stop_after = None
        self.stall = False
        self.ended = threading.Event()
        self.ranges = True
        self.status = None
        self.requested = []
        self.sent = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/ml-1m.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        wanted = self.headers["Range"]
        self.server.requested.append(wanted)
        content = self.server.content
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if self.server.status is not None:
            self.send_error(self.server.status)
            return
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:][: self.server.stop_after]
        self.wfile.write(body)
        self.server.sent += len(body)
        if self.server.stall:
            self.wfile.flush()
            self.server.ended.wait(30)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(archive, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        running.content = archive
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.ended.set()
        running.shutdown()
        thread.join()


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def _damaged() -> bytes:
    """An archive whose compressed data are no compressed data."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("ml-1m/users.dat", b"1::F::1::10::48067\n" * 100)
    content = bytearray(buffer.getvalue())
    start = 30 + len("ml-1m/users.dat")
    content[start : start + 10] = b"\xff" * 10
    return bytes(content)


def _encrypted() -> bytes:
    """An archive whose file is marked as encrypted, in its own header and in the archive's list."""
    content = bytearray(_zip({"ml-1m/users.dat": b"1::F::1::10::48067\n"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.fixture
def archive(folder) -> bytes:
    """A zip archive like GroupLens's: one folder with the data and a README, here padded to several chunks."""
    names = ("users.dat", "movies.dat", "ratings.dat")
    members = {f"ml-1m/{name}": (folder / name).read_bytes() for name in names}
    return _zip({"ml-1m/": b""} | members | {"ml-1m/README": b"terms of use\n" * 20_000})


@pytest.fixture
def output(tmp_path) -> Path:
    path = tmp_path / "downloads" / "ml-1m"
    path.parent.mkdir()
    return path


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def _entries(output: Path) -> set[str]:
    return {entry.name for entry in output.parent.iterdir()}


def test_fetches_the_files_and_nothing_else(server, archive, folder, output):
    steps = []
    fetch_movielens(output, server.url, _md5(archive), lambda done, total: steps.append((done, total)))
    assert {entry.name for entry in output.iterdir()} == {"users.dat", "movies.dat", "ratings.dat", "README"}
    assert (output / "ratings.dat").read_bytes() == (folder / "ratings.dat").read_bytes()
    assert len(read_movielens(output).ratings) == 5
    assert _entries(output) == {"ml-1m"}
    assert steps[0] == (0, len(archive))
    assert steps[-1] == (len(archive), len(archive))
    assert steps == sorted(steps)


def test_an_interrupted_download_resumes_where_it_stopped(server, archive, output):
    server.stop_after = 100_000
    with pytest.raises(FetchError, match=r"broke off .* bytes are kept: try again to go on"):
        fetch_movielens(output, server.url, _md5(archive))
    assert _entries(output) == {"ml-1m.zip.part"}
    kept = part_file(output).read_bytes()
    assert 80_000 < len(kept) <= 100_000
    assert archive.startswith(kept)
    server.stop_after = None
    steps = []
    fetch_movielens(output, server.url, _md5(archive), lambda done, total: steps.append((done, total)))
    assert server.requested == [None, f"bytes={len(kept)}-"]
    assert steps[0] == (len(kept), len(archive))
    assert _entries(output) == {"ml-1m"}
    assert len(read_movielens(output).ratings) == 5


def test_the_download_of_a_killed_process_resumes_where_it_stopped(server, archive, output):
    server.stop_after, server.stall = 100_000, True
    code = f"from components.data.fetch import *; fetch_movielens(Path({str(output)!r}), {server.url!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            deadline = time.monotonic() + 30
            while not (part_file(output).exists() and part_file(output).stat().st_size > 50_000):
                assert process.poll() is None, "the download ended early"
                assert time.monotonic() < deadline, "the download did not begin"
                time.sleep(0.02)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert _entries(output) == {"ml-1m.zip.part"}
    kept = part_file(output).stat().st_size
    server.stop_after, server.stall = None, False
    fetch_movielens(output, server.url, _md5(archive))
    assert server.requested == [None, f"bytes={kept}-"]
    assert _entries(output) == {"ml-1m"}
    assert len(read_movielens(output).ratings) == 5


def test_without_range_support_the_whole_file_is_downloaded_again(server, archive, output):
    part_file(output).write_bytes(archive[:1000])
    server.ranges = False
    fetch_movielens(output, server.url, _md5(archive))
    assert server.requested == ["bytes=1000-"]
    assert len(read_movielens(output).ratings) == 5


def test_a_complete_part_file_is_not_downloaded_again(server, archive, output):
    part_file(output).write_bytes(archive)
    fetch_movielens(output, server.url, _md5(archive))
    assert server.sent == 0
    assert _entries(output) == {"ml-1m"}


def test_a_file_with_the_wrong_checksum_is_deleted(server, archive, output):
    with pytest.raises(FetchError, match=rf"md5 should be {MD5}; received {_md5(archive)}\. It was deleted"):
        fetch_movielens(output, server.url)
    assert _entries(output) == set()


def test_the_part_of_another_file_fails_the_checksum_and_the_next_call_succeeds(server, archive, output):
    part_file(output).write_bytes(b"x" * 1000)
    with pytest.raises(FetchError, match="md5 should be"):
        fetch_movielens(output, server.url, _md5(archive))
    fetch_movielens(output, server.url, _md5(archive))
    assert len(read_movielens(output).ratings) == 5


def test_a_missing_connection_is_reported(output):
    with Server() as server:
        url = server.url
    with pytest.raises(FetchError, match=r"no connection .*online"):
        fetch_movielens(output, url)
    assert _entries(output) == set()


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_status_is_reported(server, output, status):
    server.status = status
    with pytest.raises(FetchError, match=rf"should be there; received {status} "):
        fetch_movielens(output, server.url)
    assert _entries(output) == set()


def test_an_invalid_url_is_reported(output):
    with pytest.raises(FetchError, match="cannot be fetched"):
        fetch_movielens(output, "ml-1m.zip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Please log in</html>", "should be a zip archive"),
        (_zip({"ml-1m/users.dat": b"1::F::1::10::48067\n"}), r"should hold movies\.dat, ratings\.dat; there is none"),
        (_zip({"a/users.dat": b"1", "b/users.dat": b"2"}), r"should hold one users\.dat .*; received b/users\.dat"),
        (_damaged(), r"should be a zip archive that can be extracted; .*\. The download was deleted\.$"),
        (_encrypted(), r"should be a zip archive that can be extracted; .*encrypted.* The download was deleted\.$"),
    ],
)
def test_an_archive_of_something_else_is_refused(server, archive, output, content, message):
    server.content = content
    with pytest.raises(FetchError, match=message):
        fetch_movielens(output, server.url, _md5(content))
    # Nothing is kept that would make the next call fail alike.
    assert _entries(output) == set()
    server.content = archive
    fetch_movielens(output, server.url, _md5(archive))
    assert len(read_movielens(output).ratings) == 5


def test_paths_in_the_archive_do_not_leave_the_folder(server, output, tmp_path):
    members = {f"../../../{name}": b"x" for name in ("users.dat", "movies.dat", "ratings.dat")}
    server.content = _zip(members | {"/etc/evil": b"x", "../evil": b"x"})
    fetch_movielens(output, server.url, _md5(server.content))
    assert {entry.name for entry in output.iterdir()} == {"users.dat", "movies.dat", "ratings.dat"}
    assert {path.name for path in tmp_path.rglob("*evil*")} == set()


def test_a_folder_that_is_not_empty_is_left_alone(server, output):
    output.mkdir()
    (output / "ratings.dat").write_text("mine")
    with pytest.raises(FileExistsError, match=r"ratings\.dat"):
        fetch_movielens(output, server.url)
    assert server.requested == []
    assert (output / "ratings.dat").read_text() == "mine"
