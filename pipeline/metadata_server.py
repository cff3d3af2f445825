"""The database server that keeps the metadata of runs, for pipelines whose nodes run on several machines.

Which server it is, and as whom to log on, is said by environment variables, and never by a configuration or a compiled
pipeline: these are read by many, and a password is not for many. Each of them may also be the name of a file, as
secrets are mounted into containers, in a variable whose name ends with _FILE:

    MOVIELENS_METADATA_HOST      the server's name or address (required)
    MOVIELENS_METADATA_PORT      its port (default: 3306)
    MOVIELENS_METADATA_DATABASE  a database that is there already, and holds nothing else (required)
    MOVIELENS_METADATA_USER      who may read, write and create tables in it (required)
    MOVIELENS_METADATA_PASSWORD  of the user (required)
    MOVIELENS_METADATA_TLS_CA    a file with certificates of those who may vouch for the server; connections are
                                 encrypted then (default: they are not)

Before anything is done, a connection of the project's own checks that one of these vouches for the server. ML
Metadata's client cannot check that, so that its connections are safe from listeners only, not from somebody in between.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2

PREFIX = "MOVIELENS_METADATA_"

_LARGEST_PORT = 65535


class ServerSettingError(ValueError):
    """An environment variable is missing, or has an impossible value; the message names it, but no password."""


@dataclass(frozen=True)
class Server:
    """A MySQL or MariaDB server.

    Attributes:
      host, port, database, user, password: as the environment variables.
      tls_ca: the file with certificates; "" for a connection that is not encrypted.
    """

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    tls_ca: str = ""

    def __str__(self) -> str:
        return f"the database {self.database!r} on {self.host}:{self.port}"

    @property
    def connection(self) -> "metadata_store_pb2.ConnectionConfig":
        """How ML Metadata connects; this has the password."""
        from ml_metadata.proto import metadata_store_pb2

        config = metadata_store_pb2.ConnectionConfig()
        config.mysql.host, config.mysql.port, config.mysql.database = self.host, self.port, self.database
        config.mysql.user, config.mysql.password = self.user, self.password
        # Whoever may create databases on the server may do more than the pipeline needs.
        config.mysql.skip_db_creation = True
        if self.tls_ca:
            # ML Metadata's client encrypts, but takes no certificate if it should check one, whoever vouches for it.
            config.mysql.ssl_options.ca = self.tls_ca
        return config


def open_connection() -> "metadata_store_pb2.ConnectionConfig":
    """The connection that a compiled pipeline has: to whatever server the process that runs a node is told."""
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.mysql.SetInParent()
    return config


def filled_in(config: "metadata_store_pb2.ConnectionConfig") -> "metadata_store_pb2.ConnectionConfig":
    """The connection itself, or that to the server of the environment if the connection was left open.

    Raises:
      ServerSettingError: the environment names no server.
    """
    if config.WhichOneof("config") == "mysql" and not config.mysql.host:
        return server_of().connection
    return config


def server_of(environment: Mapping[str, str] | None = None) -> Server:
    """The server that environment variables name.

    Args:
      environment: the variables; None for those of this process.

    Raises:
      ServerSettingError: a variable is missing, or has an impossible value.
    """
    variables = os.environ if environment is None else environment
    port = _value(variables, "PORT", "3306")
    if not port.isdecimal() or not 0 < int(port) <= _LARGEST_PORT:
        raise ServerSettingError(f"{PREFIX}PORT should be from 1 to {_LARGEST_PORT}; received {port!r}.")
    certificates = _value(variables, "TLS_CA", "")
    if certificates:
        try:
            ssl.create_default_context(cafile=certificates)
        except (OSError, ValueError) as error:
            raise ServerSettingError(
                f"{PREFIX}TLS_CA should be a file with certificates (PEM); received {certificates!r}; {error}."
            ) from error
    host, database, user = (_value(variables, name) for name in ("HOST", "DATABASE", "USER"))
    return Server(host, int(port), database, user, _value(variables, "PASSWORD"), certificates)


def _value(variables: Mapping[str, str], name: str, default: str | None = None) -> str:
    variable = PREFIX + name
    value, file = variables.get(variable), variables.get(f"{variable}_FILE")
    if value is not None and file is not None:
        raise ServerSettingError(f"{variable} and {variable}_FILE should not both be set.")
    if file is not None:
        try:
            # Editors end a file with a newline, which is no part of a password.
            value = Path(file).read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ServerSettingError(f"{variable}_FILE should be a readable file; {error}.") from error
    value = default if value is None else value
    if value is None or (default is None and not value):
        raise ServerSettingError(
            f"{variable} should be set in the environment, or {variable}_FILE name a file that holds it: the "
            "configuration keeps metadata on a server (metadata.backend)."
        )
    return value
