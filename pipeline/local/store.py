"""Where the metadata of an output folder are kept: in a file of the folder, or in a database on a server.

An output folder keeps to what its first run chose. With a server, the folder has a file that says so, with a name that
nobody else has; the database knows that name, too. So neither can be taken for another one's: a database that was
emptied or mixed up is noticed, and two folders never share one, since each of them repairs what it finds unfinished.
"""

import contextlib
import json
import shutil
import sqlite3
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.local.errors import RunError
from pipeline.metadata_server import Server, open_connection, server_of

if TYPE_CHECKING:
    import ml_metadata as mlmd
    from ml_metadata.proto import metadata_store_pb2
    from pymysql.connections import Connection

_OWNER = "movielens.OutputFolder"  # The type of the context by which a database knows its output folder.
_ROOT = "root"  # Its property with the place where the folder was used last.

_SECONDS = 10  # To wait for a server.
_SECONDS_OF_A_QUERY = 300  # To wait for what it answers; a copy reads whole tables.

# Those of ML Metadata, without which nothing can be known of a database; it makes them one by one.
_TABLES = {"Artifact", "Context", "ContextProperty", "Execution", "MLMDEnv", "Type"}

_FIRST_RUN = (
    "SELECT c.name || ' ' || c.create_time_since_epoch FROM Context c JOIN Type t ON c.type_id = t.id "
    "WHERE t.name = 'pipeline_run' ORDER BY c.id"
)


class Store(ABC):
    """The metadata of an output folder."""

    @abstractmethod
    def __str__(self) -> str:
        """What to call it in messages."""

    @property
    @abstractmethod
    def connection(self) -> "metadata_store_pb2.ConnectionConfig":
        """The connection for a pipeline; it has no password, which is filled in where a node runs."""

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether it was ever used.

        Raises:
          RunError: a server cannot be asked.
        """

    @abstractmethod
    def begin(self) -> None:
        """Makes it this folder's if it is new; to be called before a pipeline writes to it."""

    @abstractmethod
    def open(self) -> "mlmd.MetadataStore":
        """Opens it, also if others have it open at the same time; makes it first if it does not exist."""

    @abstractmethod
    def check(self, alone: bool) -> None:
        """Checks that it can be used, if it exists.

        Args:
          alone: whether nobody else should be using it; otherwise others may, and this waits for them.

        Raises:
          RunError: it is damaged, locked, of another output folder, or out of reach.
        """

    @abstractmethod
    def copy(self, path: Path) -> None:
        """Copies it into an SQLite file."""

    @abstractmethod
    def identity(self) -> str | None:
        """What it has in common with nothing but its own copies; None if it cannot be read."""


class FileStore(Store):
    """An SQLite file; for runs on one machine."""

    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def connection(self) -> "metadata_store_pb2.ConnectionConfig":
        return metadata_config(self.path)

    @property
    def exists(self) -> bool:
        return self.path.is_file()

    def begin(self) -> None:
        pass

    def open(self) -> "mlmd.MetadataStore":
        from tfx.orchestration import metadata

        with metadata.Metadata(self.connection) as handle:
            return handle.store

    def check(self, alone: bool) -> None:
        if not self.path.exists():
            return
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=1.0 if alone else 60.0)) as store:
                store.execute("BEGIN IMMEDIATE" if alone else "BEGIN")
                (verdict,) = store.execute("PRAGMA quick_check(1)").fetchone()
                store.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise RunError(f"{self.path}: is locked by another process; close it and run again.") from error
            verdict = str(error)
        if verdict != "ok":
            raise RunError(
                f"{self.path}: should be a sound SQLite database; {verdict}. Delete {self.path.parent}, or choose "
                "another --output."
            )

    def copy(self, path: Path) -> None:
        shutil.copyfile(self.path, path)

    def identity(self) -> str | None:
        """What the first run is called and when it began, "" if there is none yet.

        Two folders' first runs may have the same name, which whoever runs single nodes chooses.
        """
        try:
            with contextlib.closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as store:
                row = store.execute(_FIRST_RUN).fetchone()
        except sqlite3.Error:
            return None
        return str(row[0]) if row else ""


class ServerStore(Store):
    """A database on the server that the environment names; for runs whose nodes are on several machines."""

    def __init__(self, mark: Path):
        self._mark = mark

    def __str__(self) -> str:
        return str(server_of())

    @property
    def connection(self) -> "metadata_store_pb2.ConnectionConfig":
        return open_connection()

    @property
    def exists(self) -> bool:
        with _connected(server_of()) as database:
            return self._owner(database) is not None

    def begin(self) -> None:
        self.open()

    def open(self) -> "mlmd.MetadataStore":
        from ml_metadata.proto import metadata_store_pb2
        from tfx.orchestration import metadata

        server = server_of()
        with _connected(server) as database:
            self._refuse_others(server, database)
        with contextlib.ExitStack() as opened:
            try:
                store = opened.enter_context(metadata.Metadata(server.connection)).store
            except RuntimeError as error:
                # Such as a way to log on that ML Metadata's client does not know, though others do.
                raise RunError(f"{server}: should be one that ML Metadata can use; {error}.") from error
            owner = metadata_store_pb2.ContextType(name=_OWNER)
            type_id = store.put_context_type(owner)  # Does nothing if it was done before.
            here = str(self._mark.parent)
            context = store.get_context_by_type_and_name(_OWNER, self.identity())
            if context is None:
                context = metadata_store_pb2.Context(type_id=type_id, name=self.identity())
                context.custom_properties[_ROOT].string_value = here
                store.put_contexts([context])
                # Of two folders that found the same empty database, the one whose name came first has it.
                with _connected(server) as database:
                    self._refuse_others(server, database)
            elif context.custom_properties[_ROOT].string_value != here:
                context.custom_properties[_ROOT].string_value = here
                store.put_contexts([context])
            return store

    def check(self, alone: bool) -> None:
        server = server_of()
        with _connected(server) as database:
            self._refuse_others(server, database)

    def copy(self, path: Path) -> None:
        import ml_metadata as mlmd

        mlmd.MetadataStore(metadata_config(path))  # Makes the tables.
        with (
            _connected(server_of(), charset="latin1", use_unicode=False) as database,
            contextlib.closing(sqlite3.connect(path)) as file,
        ):
            tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            with database.cursor() as cursor, file:
                cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
                for table in tables:
                    if table.startswith("sqlite_"):
                        continue
                    # ML Metadata's client writes UTF-8 and says that it is Latin-1, so that is how to read it.
                    kinds = {name: kind for _, name, kind, *_ in file.execute(f"PRAGMA table_info(`{table}`)")}
                    cursor.execute(f"SELECT * FROM `{table}`")
                    is_text = ["BLOB" not in kinds[column[0]].upper() for column in cursor.description]
                    columns = ", ".join(f"`{column[0]}`" for column in cursor.description)
                    marks = ", ".join("?" * len(cursor.description))
                    file.execute(f"DELETE FROM `{table}`")
                    file.executemany(
                        f"INSERT INTO `{table}` ({columns}) VALUES ({marks})",
                        [
                            [
                                v.decode() if isinstance(v, bytes) and text else v
                                for v, text in zip(row, is_text, strict=True)
                            ]
                            for row in cursor.fetchall()
                        ],
                    )

    def identity(self) -> str | None:
        try:
            return str(json.loads(self._mark.read_text(encoding="utf-8"))["folder"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def _owner(database: "Connection[Any]") -> str | None:
        """The output folder that the database belongs to; None if it is empty, "" if it holds something else."""
        with database.cursor() as cursor:
            cursor.execute("SHOW TABLES")
            tables = {name for (name,) in cursor.fetchall()}
            if not tables:
                return None
            if not tables >= _TABLES:
                return ""
            cursor.execute(
                "SELECT c.name FROM Context c JOIN Type t ON c.type_id = t.id WHERE t.name = %s ORDER BY c.id", [_OWNER]
            )
            row = cursor.fetchone()
            if row:
                return str(row[0])
            # A process may have been killed after it made the tables.
            cursor.execute("SELECT COUNT(*) FROM Execution")
            return "" if cursor.fetchone() != (0,) else None

    @staticmethod
    def _root(database: "Connection[Any]") -> str | None:
        """Where the output folder that the database belongs to was used last; None if it says nothing of it."""
        with database.cursor() as cursor:
            cursor.execute(
                "SELECT p.string_value FROM Context c JOIN Type t ON c.type_id = t.id JOIN ContextProperty p "
                "ON p.context_id = c.id WHERE t.name = %s AND p.name = %s ORDER BY c.id",
                [_OWNER, _ROOT],
            )
            row = cursor.fetchone()
        return str(row[0]) if row else None

    def _refuse_others(self, server: Server, database: "Connection[Any]") -> None:
        """Checks that the database is empty or this folder's, and that this folder is no copy of the one it is of.

        The database knows where its folder was used last. If the folder is there still, under the same name, this one
        is a copy of it; otherwise it was moved here.
        """
        owner, identity = self._owner(database), self.identity()
        if identity is None:
            raise RunError(f"{self._mark}: should name the folder to its database; it cannot be read.")
        last = Path(self._root(database) or self._mark.parent) if owner == identity else self._mark.parent
        is_here = last.exists() and last.samefile(self._mark.parent)
        if not is_here and ServerStore(last / self._mark.name).identity() == identity:
            # Each would take the other's running nodes for ones that were killed.
            raise RunError(
                f"{self._mark.parent}: is a copy of {last}, whose metadata are on a server, and belong to that one. "
                "Choose another --output."
            )
        if owner is not None and owner != identity:
            if owner:
                whose = "belongs to another output folder"
            else:
                whose = "holds something else, or what a process left that was killed while it made the tables"
            raise RunError(f"{server}: should be the one of {self._mark.parent}, or empty; it {whose}.")


def reach_server() -> None:
    """Checks that the server of the environment answers, and takes the user.

    Raises:
      RunError: it does not.
    """
    with _connected(server_of()):
        pass


def mark_of_server() -> bytes:
    """What the file says by which an output folder knows that its metadata are on a server."""
    return (json.dumps({"backend": "mysql", "folder": uuid.uuid4().hex}) + "\n").encode()


def metadata_config(path: Path) -> "metadata_store_pb2.ConnectionConfig":
    """Returns the connection to the SQLite metadata store at a path; connecting creates a missing store."""
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return config


@contextlib.contextmanager
def _connected(server: Server, **options: Any) -> Iterator["Connection[Any]"]:
    """A connection to a server that says what is wrong, which ML Metadata does not.

    Raises:
      RunError: there is none.
    """
    import pymysql

    try:
        connection = pymysql.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password.encode(),  # As ML Metadata's client sends it; a text would be sent as Latin-1.
            database=server.database,
            connect_timeout=_SECONDS,
            read_timeout=_SECONDS_OF_A_QUERY,
            write_timeout=_SECONDS_OF_A_QUERY,
            ssl={"ca": server.tls_ca} if server.tls_ca else None,
            **options,
        )
    except (pymysql.err.MySQLError, OSError, ValueError) as error:
        # ValueError is that of a host whose name cannot be one.
        raise RunError(f"{server}: should keep the metadata; {error.args[-1] if error.args else error}.") from error
    with contextlib.closing(connection):
        try:
            yield connection
        except pymysql.err.MySQLError as error:
            raise RunError(f"{server}: the connection was lost; {error.args[-1]}.") from error
