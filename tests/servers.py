"""Real database servers that listen on this machine alone, for as long as a test needs them."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pymysql
import pytest

PASSWORD = "a password of the tests and of nothing else"  # No secret.


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def wait_until(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until somebody listens at a port of this machine."""
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)


class MariaDB:
    """A server with a user, `movielens`, who may do everything in databases whose name begins with `movielens`."""

    def __init__(self, folder: Path, port: int, socket_file: Path):
        self.folder, self.port, self._socket = folder, port, socket_file

    def execute(self, statement: str, database: str | None = None) -> list[tuple[object, ...]]:
        """Executes a statement as the server's administrator."""
        connection = pymysql.connect(unix_socket=str(self._socket), user="root", database=database, autocommit=True)
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def environment(self, database: str) -> dict[str, str]:
        """The variables that name an empty database of the server."""
        self.execute(f"DROP DATABASE IF EXISTS {database}")
        self.execute(f"CREATE DATABASE {database}")
        return {
            "MOVIELENS_METADATA_HOST": "127.0.0.1",
            "MOVIELENS_METADATA_PORT": str(self.port),
            "MOVIELENS_METADATA_DATABASE": database,
            "MOVIELENS_METADATA_USER": "movielens",
            "MOVIELENS_METADATA_PASSWORD": PASSWORD,
        }


@contextlib.contextmanager
def running_mariadb(folder: Path, *options: str) -> Iterator[MariaDB]:
    """Starts a MariaDB whose files are in an empty folder; skips the test if Debian's package is not installed."""
    programs = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in _PROGRAMS}
    if None in programs.values():
        pytest.skip("MariaDB is not installed; it is Debian's package mariadb-server")
    user, port = pwd.getpwuid(os.geteuid()).pw_name, free_port()
    data, socket_file = folder / "data", Path("/tmp", f"mariadb-{port}.sock")  # A socket's path has to be short.
    common = ["--no-defaults", f"--datadir={data}"]
    install = [
        str(programs["mariadb-install-db"]),
        *common,
        f"--user={user}",
        "--auth-root-authentication-method=normal",
    ]
    subprocess.run(install, check=True, capture_output=True)
    listen = [f"--user={user}", "--bind-address=127.0.0.1", f"--port={port}", f"--socket={socket_file}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(programs["mariadbd"]), *common, *listen, *options], stdout=log, stderr=log)
        server = MariaDB(folder, port, socket_file)
        try:
            _wait_for(server, process)
            server.execute(f"CREATE USER movielens@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
            server.execute("GRANT ALL ON `movielens%`.* TO movielens@'127.0.0.1'")
            yield server
        finally:
            process.terminate()
            process.wait(60)


_PROGRAMS = ("mariadbd", "mariadb-install-db")


def _wait_for(server: MariaDB, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            server.execute("SELECT 1")
            return
        except pymysql.err.OperationalError:
            assert process.poll() is None, (server.folder / "log").read_text()
            assert time.monotonic() < end, (server.folder / "log").read_text()
            time.sleep(0.1)


@contextlib.contextmanager
def running_postgres(databases: Sequence[str]) -> Iterator[str]:
    """Starts a PostgreSQL in a folder of its own; skips the test if Debian's package is not installed.

    The folder is none of pytest's: PostgreSQL refuses to run as root, and every start of pytest closes its folders to
    other users.

    Yields:
      The address of the server, for SQLAlchemy; a slash and one of the databases' names follow.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed; it is Debian's package postgresql")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def call(program: str, *arguments: str, check: bool = True) -> None:
        as_user = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
        subprocess.run([*as_user, str(programs[-1].with_name(program)), *arguments], check=check, cwd="/")

    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if os.geteuid() == 0:
            shutil.chown(folder, user)
        data = str(folder / "data")
        call("initdb", "-D", data, "-A", "trust", "-U", "airflow")
        port = free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        stack.callback(call, "pg_ctl", "-D", data, "-m", "immediate", "stop", check=False)
        call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        for database in databases:
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "airflow", database)
        yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}"
