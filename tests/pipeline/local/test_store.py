"""The metadata on a real MariaDB: whole runs and single nodes, champions and the cache, plans, and what goes wrong."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2

from pipeline.local.errors import RunError
from pipeline.local.output import OutputFolder
from pipeline.local.store import ServerStore, metadata_config
from pipeline.metadata_server import server_of
from tests.pipeline.local.test_single_node import IDS, Folder
from tests.servers import PASSWORD, MariaDB, running_mariadb

SERVER = "metadata.backend=mysql"

pytestmark = [pytest.mark.component, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with running_mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def environment(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    variables = mariadb.environment("movielens_test")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


@pytest.fixture
def compiled(environment: dict[str, str], folder: Folder) -> Folder:
    folder.data.mkdir()
    assert folder.compile(SERVER)[0] == 0
    return folder


def run_all(folder: Folder, run_id: str) -> list[str]:
    """Runs all nodes, and gives what they say they did."""
    said = []
    for node in IDS:
        code, _, err = folder.do("run-node", "--node", node, "--run-id", run_id, "--pipeline", str(folder.pipeline))
        assert code == 0, err
        said.append(err.splitlines()[-1].split(": ")[1].split(",")[0])
    return said


def test_nodes_run_one_by_one_and_the_next_run_comes_from_the_cache(compiled: Folder) -> None:
    assert run_all(compiled, "one") == ["complete", "complete", "complete", "resolved", "complete"]
    assert run_all(compiled, "two") == ["cached", "cached", "cached", "resolved", "cached"]
    code, out, err = compiled.do("summary", "--run-id", "two", "--pipeline", str(compiled.pipeline))
    assert code == 0, out + err
    assert not (compiled.output / "metadata.sqlite").exists()


def test_runs_whose_ids_differ_in_case_or_are_long_are_runs_of_their_own(compiled: Folder) -> None:
    """A database does not tell upper from lower case, and takes 255 bytes."""
    for run in ("one", "ONE", "é" * 300, "é" * 300 + "2"):
        code, _, err = compiled.do(
            "run-node", "--node", "Source", "--run-id", run, "--pipeline", str(compiled.pipeline)
        )
        assert code == 0, err
    runs = OutputFolder(compiled.output).store.open().get_contexts_by_type("pipeline_run")
    assert len(runs) == 4


def test_nodes_in_processes_of_their_own_use_the_server_at_the_same_time(compiled: Folder) -> None:
    options = ["--pipeline", str(compiled.pipeline)]
    for run_id in ("one", "two"):
        assert compiled.do("run-node", "--node", "Source", "--run-id", run_id, *options)[0] == 0
        assert compiled.do("run-node", "--node", "Worker", "--run-id", run_id, *options)[0] == 0
    both = [
        compiled.start("run-node", "--node", node, "--run-id", "two", *options)
        for node in ("FeatureImportance", "Latest")
    ]
    assert [process.wait(300) for process in both] == [0, 0]


def test_a_killed_node_is_run_again(compiled: Folder) -> None:
    options = ["--run-id", "one", "--pipeline", str(compiled.pipeline)]
    assert compiled.do("run-node", "--node", "Source", *options)[0] == 0
    killed = compiled.start("run-node", "--node", "Worker", *options, trouble="kill")
    assert killed.wait(300) == -9
    code, _, err = compiled.do("run-node", "--node", "Worker", *options)
    assert code == 0, err
    assert "Worker: complete" in err


def test_the_password_is_in_nothing_that_is_written_or_printed(compiled: Folder) -> None:
    said = compiled.do("run-node", "--node", "Source", "--run-id", "one", "--pipeline", str(compiled.pipeline))
    files = [path for path in compiled.pipeline.parent.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    assert PASSWORD not in "".join(map(str, said))


def test_a_whole_run_and_a_plan_go_by_the_same_records(environment: dict[str, str], folder: Folder) -> None:
    options = ["--output", str(folder.output), "--set", SERVER]
    code, out, err = folder.do("run", *options)
    assert code == 0, out + err
    store = OutputFolder(folder.output).store
    artifact = metadata_store_pb2.Artifact(type_id=store.open().get_artifacts()[0].type_id, uri="/é/日本")
    store.open().put_artifacts([artifact])
    copy = folder.output.parent / "copy.sqlite"
    store.copy(copy)
    there, copied = store.open(), mlmd.MetadataStore(metadata_config(copy))
    for kind in ("artifacts", "executions", "contexts", "artifact_types", "execution_types", "context_types"):
        of_both = [getattr(each, f"get_{kind}")() for each in (there, copied)]
        assert of_both[0]
        by_id = [sorted(each, key=lambda entry: entry.id) for each in of_both]
        assert [str(entry) for entry in by_id[0]] == [str(entry) for entry in by_id[1]]
    ids = [execution.id for execution in there.get_executions()]
    assert len(there.get_events_by_execution_ids(ids)) == len(copied.get_events_by_execution_ids(ids)) > 0
    code, out, err = folder.do("run", *options)
    assert code == 0, out + err
    said = [line.split(" … ")[1].split()[0] for line in err.splitlines() if " … " in line]
    assert said == ["cached", "cached", "cached", "resolved", "cached"]
    code, out, err = folder.do("plan", *options)
    assert code == 0, out + err
    assert out.count("from the cache") == 4, out


def test_the_beam_runner_uses_the_server_too(environment: dict[str, str], folder: Folder) -> None:
    options = ["--output", str(folder.output), "--set", SERVER, "--runner", "beam"]
    code, out, err = folder.do("run", *options)
    assert code == 0, out + err
    assert OutputFolder(folder.output).store.open().get_executions()


def test_what_was_pushed_is_withdrawn_and_pruned(environment: dict[str, str], folder: Folder) -> None:
    for epochs in (1, 2, 3):
        options = ["--output", str(folder.output), "--set", SERVER, "--set", f"models.ranking.epochs={epochs}"]
        code, out, err = folder.do("run", *options)
        assert code == 0, out + err
    versions = sorted(int(path.name) for path in (folder.output / "serving" / "recommender").iterdir())
    assert len(versions) == 3
    newest = str(versions[-1])
    code, out, err = folder.do("withdraw", "recommender", newest, "--output", str(folder.output), "--why", "a test")
    assert code == 0, out + err
    assert not (folder.output / "serving" / "recommender" / newest).exists()
    before = sorted(str(path) for path in folder.output.rglob("*"))
    code, out, err = folder.do("prune", "--output", str(folder.output), "--keep-runs", "1")
    assert code == 0, out + err
    assert [path for path in before if not Path(path).exists()] == []
    code, out, err = folder.do("prune", "--output", str(folder.output), "--keep-runs", "1", "--yes")
    assert code == 0, out + err
    states = [artifact.state for artifact in OutputFolder(folder.output).store.open().get_artifacts()]
    assert metadata_store_pb2.Artifact.DELETED in states


def test_a_database_belongs_to_one_output_folder(compiled: Folder, tmp_path: Path, monkeypatch) -> None:
    assert compiled.do("run-node", "--node", "Source", "--run-id", "one", "--pipeline", str(compiled.pipeline))[0] == 0
    (tmp_path / "other").mkdir()
    other = Folder(tmp_path / "other", monkeypatch)
    other.data.mkdir()
    code, _, err = other.compile(SERVER)
    assert code == 1
    assert f"should be the one of {other.output}, or empty; it belongs to another output folder" in err


def test_a_database_with_something_else_is_left_alone(
    mariadb: MariaDB, environment: dict[str, str], folder: Folder
) -> None:
    mariadb.execute("CREATE TABLE accounts (id INT)", "movielens_test")
    folder.data.mkdir()
    code, _, err = folder.compile(SERVER)
    assert code == 1
    assert "it holds something else" in err
    assert mariadb.execute("SHOW TABLES", "movielens_test") == [("accounts",)]


def test_a_copy_of_an_output_folder_is_no_second_owner_but_one_that_was_moved_is(
    compiled: Folder, tmp_path: Path
) -> None:
    options = ["--run-id", "one", "--pipeline", str(compiled.pipeline)]
    assert compiled.do("run-node", "--node", "Source", *options)[0] == 0
    shutil.copytree(compiled.output, tmp_path / "copy")
    code, _, err = compiled.do("run", "--output", str(tmp_path / "copy"), "--set", SERVER)
    assert code == 1
    assert f"{tmp_path / 'copy'}: is a copy of {compiled.output}" in err
    shutil.rmtree(tmp_path / "copy")
    compiled.output.rename(tmp_path / "moved")
    # Of a moved folder and a copy of it, the one that is used first has the metadata.
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    code, out, err = compiled.do("run", "--output", str(tmp_path / "moved"), "--set", SERVER)
    assert code == 0, out + err
    code, _, err = compiled.do("run", "--output", str(tmp_path / "copy"), "--set", SERVER)
    assert code == 1
    assert f"{tmp_path / 'copy'}: is a copy of {tmp_path / 'moved'}" in err


def test_what_a_killed_process_left_of_an_empty_database_is_taken(
    mariadb: MariaDB, environment: dict[str, str], folder: Folder
) -> None:
    mlmd.MetadataStore(server_of().connection)  # Makes the tables.
    folder.data.mkdir()
    code, _, err = folder.compile(SERVER)
    assert code == 0, err


def test_of_two_folders_that_find_the_same_empty_database_one_has_it(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = []
    for name in ("one", "other"):
        output = OutputFolder(tmp_path / name)
        output.keep_metadata("mysql")
        stores.append(output.store)
    stores[0].open()
    # The other one has looked before, when it was empty.
    found = ServerStore._owner
    looks = iter([None])
    monkeypatch.setattr(ServerStore, "_owner", staticmethod(lambda database: next(looks, found(database))))
    with pytest.raises(RunError, match="it belongs to another output folder"):
        stores[1].open()


def test_an_emptied_database_is_noticed(mariadb: MariaDB, compiled: Folder) -> None:
    options = ["--run-id", "one", "--pipeline", str(compiled.pipeline)]
    assert compiled.do("run-node", "--node", "Source", *options)[0] == 0
    mariadb.environment("movielens_test")
    code, _, err = compiled.do("run-node", "--node", "Source", *options)
    assert code == 1
    assert "holds artifacts, but the metadata that describe them" in err


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({"PORT": "1"}, 1, "Can't connect to MySQL server on '127.0.0.1'"),
        ({"PASSWORD": "wrong"}, 1, "Access denied for user 'movielens'@"),
        ({"PASSWORD": "日本"}, 1, "Access denied for user 'movielens'@"),
        ({"DATABASE": "movielens_none"}, 1, "Unknown database 'movielens_none'"),
        ({"HOST": "a" * 70}, 1, "should keep the metadata"),
        ({"HOST": ""}, 2, "MOVIELENS_METADATA_HOST should be set in the environment"),
    ],
)
def test_a_server_out_of_reach_is_a_message(compiled: Folder, monkeypatch, changed, code, message) -> None:
    for name, value in changed.items():
        monkeypatch.setenv(f"MOVIELENS_METADATA_{name}", value)
    options = ["--run-id", "one", "--pipeline", str(compiled.pipeline)]
    for command in (["run-node", "--node", "Source", *options], ["summary", *options]):
        answer = compiled.do(*command)
        assert answer[0] == code, answer
        assert message in answer[2]
        assert "Traceback" not in answer[2]
        assert PASSWORD not in answer[2]


def test_a_first_try_that_finds_no_server_leaves_nothing_behind(
    environment: dict[str, str], folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOVIELENS_METADATA_PORT", "1")
    folder.data.mkdir()
    code, _, err = folder.compile(SERVER)
    assert (code, "Can't connect to MySQL server" in err) == (1, True)
    assert not (folder.output / "metadata.json").exists()
    assert folder.compile()[0] == 0


def test_an_output_folder_keeps_to_what_it_has(environment: dict[str, str], folder: Folder) -> None:
    assert folder.do("run", "--output", str(folder.output))[0] == 0
    code, _, err = folder.do("run", "--output", str(folder.output), "--set", SERVER)
    assert code == 1
    assert "earlier runs keep their metadata in a file, as metadata.sqlite says; metadata.backend is mysql" in err
    other = folder.output.with_name("other")
    assert folder.do("run", "--output", str(other), "--set", SERVER)[0] == 0
    code, _, err = folder.do("run", "--output", str(other))
    assert code == 1
    assert "earlier runs keep their metadata in a server, as metadata.json says; metadata.backend is sqlite" in err


def test_the_connection_may_be_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server refuses connections that are not, and the client those to a server that nobody vouches for."""
    authority, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    for certificate in (authority, other):
        key = certificate.with_suffix(".key")
        new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=a test"]
        subprocess.run([*new, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    key, request, certificate = (tmp_path / f"server.{kind}" for kind in ("key", "csr", "pem"))
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*new, "-keyout", str(key), "-out", str(request)], check=True, capture_output=True)
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:127.0.0.1")
    by = ["-CA", str(authority), "-CAkey", str(authority.with_suffix(".key"))]
    sign = ["openssl", "x509", "-req", "-days", "2", *by]
    files = ["-in", str(request), "-out", str(certificate), "-extfile", str(tmp_path / "names"), "-CAcreateserial"]
    subprocess.run([*sign, *files], check=True, capture_output=True)
    (tmp_path / "server").mkdir()
    options = [
        f"--ssl-cert={certificate}",
        f"--ssl-key={key}",
        f"--ssl-ca={authority}",
        "--require-secure-transport=ON",
    ]
    with running_mariadb(tmp_path / "server", *options) as server:
        for name, value in server.environment("movielens_tls").items():
            monkeypatch.setenv(name, value)
        folder = Folder(tmp_path, monkeypatch)
        folder.data.mkdir()
        code, _, err = folder.compile(SERVER)
        assert code == 1, err
        monkeypatch.setenv("MOVIELENS_METADATA_TLS_CA", str(other))
        code, _, err = folder.compile(SERVER)
        assert code == 1
        assert "certificate verify failed" in err
        monkeypatch.setenv("MOVIELENS_METADATA_TLS_CA", str(authority))
        assert folder.compile(SERVER)[0] == 0
        options = ["--run-id", "one", "--pipeline", str(folder.pipeline)]
        code, _, err = folder.do("run-node", "--node", "Source", *options)
        assert code == 0, err
