"""The server that keeps the metadata is named by the environment; a password is nowhere but there."""

from pathlib import Path

import certifi
import pytest

from pipeline.metadata_server import PREFIX, ServerSettingError, filled_in, open_connection, server_of

GIVEN = {"HOST": "db.example", "DATABASE": "movielens", "USER": "pipeline", "PASSWORD": "s3cret"}


def variables(**changed: str | None) -> dict[str, str]:
    return {PREFIX + name: value for name, value in (GIVEN | changed).items() if value is not None}


def test_the_variables_name_a_server() -> None:
    server = server_of(variables(PORT="3307"))
    assert (server.host, server.port, server.database) == ("db.example", 3307, "movielens")
    assert (server.user, server.password) == ("pipeline", "s3cret")
    assert server_of(variables()).port == 3306


def test_files_may_hold_the_values(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(" of a file\n")
    server = server_of(variables(PASSWORD=None, PASSWORD_FILE=str(tmp_path / "password")))
    assert server.password == " of a file"


def test_nothing_that_is_printed_has_the_password(tmp_path: Path) -> None:
    server = server_of(variables())
    assert "s3cret" not in f"{server} {server!r}"
    with pytest.raises(ServerSettingError) as raised:
        server_of(variables(PORT="x"))
    assert "s3cret" not in str(raised.value)


def test_tls_is_for_those_who_name_an_authority() -> None:
    config = server_of(variables(TLS_CA=certifi.where())).connection
    assert config.mysql.ssl_options.ca == certifi.where()
    assert not server_of(variables()).connection.mysql.HasField("ssl_options")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"HOST": None}, f"{PREFIX}HOST should be set in the environment, or {PREFIX}HOST_FILE name a file"),
        ({"PASSWORD": None}, f"{PREFIX}PASSWORD should be set"),
        ({"USER": ""}, f"{PREFIX}USER should be set"),
        ({"PORT": "0"}, f"{PREFIX}PORT should be from 1 to 65535; received '0'"),
        ({"PORT": "3306 "}, f"{PREFIX}PORT should be from 1 to 65535"),
        ({"TLS_CA": "/none"}, f"{PREFIX}TLS_CA should be a file with certificates (PEM); received '/none'"),
        ({"TLS_CA": __file__}, f"{PREFIX}TLS_CA should be a file with certificates (PEM); received '{__file__}'"),
        ({"HOST_FILE": "/none"}, f"{PREFIX}HOST and {PREFIX}HOST_FILE should not both be set"),
        ({"HOST": None, "HOST_FILE": "/none"}, f"{PREFIX}HOST_FILE should be a readable file"),
    ],
)
def test_what_is_missing_or_impossible_is_named(changed: dict[str, str | None], message: str) -> None:
    with pytest.raises(ServerSettingError) as raised:
        server_of(variables(**changed))
    assert message in str(raised.value)


def test_an_open_connection_is_filled_in_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert b"s3cret" not in open_connection().SerializeToString()
    with pytest.raises(ServerSettingError):
        filled_in(open_connection())
    for name, value in variables().items():
        monkeypatch.setenv(name, value)
    assert filled_in(open_connection()).mysql.password == "s3cret"
    # One that is complete stays what it is.
    complete = server_of(variables(HOST="another.example")).connection
    assert filled_in(complete) == complete
