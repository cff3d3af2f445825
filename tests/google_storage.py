"""Google Cloud Storage as an emulator answers for it, for programs of a test and on this machine alone.

TensorFlow asks for Google's own names, at port 443 and with TLS; no setting names another address. So what a test runs
is put where these names are this machine: into namespaces of its own, with a network of nothing but the loopback and
another table of hosts. Neither needs the rights of root, and nothing outside is changed.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

NAMES = tuple(f"{name}.googleapis.com" for name in ("storage", "www", "oauth2", "iamcredentials"))
_ROOT = Path(__file__).parents[1]
_SERVER = Path(__file__).with_name("gcs_server.py")
# In the new namespaces: the loopback, the table of hosts, and then the server in place of the shell.
_START = 'ip link set lo up && mount --bind "$1" /etc/hosts && shift && exec "$@"'


class GoogleStorage:
    """A bucket, and how a program is called that can reach it."""

    def __init__(self, folder: Path, server: int, bucket: str):
        self.folder, self._server, self.bucket = folder, server, bucket

    def call(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Calls a program, with a service account's key in its environment."""
        target = f"--target={self._server}"
        enter = ["nsenter", target, "--user", "--preserve-credentials", "--net", "--mount", f"--wd={_ROOT}"]
        authority = str(self.folder / "authority.pem")
        of_storage = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.folder / "account.json"),
            "GOOGLE_CLOUD_PROJECT": "tests",
            "NO_GCE_CHECK": "true",
            # With it, gcsfs would ask what kind of bucket it is by gRPC, which the emulator does not speak.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            # Each library has a variable of its own for the authorities that it trusts.
            "CURL_CA_BUNDLE": authority,
            "REQUESTS_CA_BUNDLE": authority,
            "SSL_CERT_FILE": authority,
        }
        # A proxy could not be reached.
        mine = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return subprocess.run(
            [*enter, "--", *command],
            env=mine | of_storage | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )


@contextlib.contextmanager
def running_google_storage(folder: Path, bucket: str = "bucket") -> Iterator[GoogleStorage]:
    """Starts the emulator with an empty bucket; skips the test where it, or a namespace, cannot be had."""
    emulator = shutil.which("gcp-storage-emulator")
    if emulator is None:
        pytest.skip("gcp-storage-emulator is not on PATH; `make test-places` installs it in an environment of its own")
    unshare = ["unshare", "--map-root-user", "--net", "--mount", "--"]
    if subprocess.run([*unshare, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives a user no namespaces, or lacks Debian's package iproute2")
    _write_keys(folder)
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {' '.join(NAMES)}\n")
    python = str(Path(emulator).with_name("python"))
    serve = [python, str(_SERVER), "--certificate", str(folder / "server.pem"), "--bucket", bucket]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*unshare, "sh", "-c", _START, "sh", str(hosts), *serve], stdout=log, stderr=log)
        storage = GoogleStorage(folder, process.pid, bucket)
        try:
            _wait_for(storage, process)
            yield storage
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(storage: GoogleStorage, process: subprocess.Popen[bytes]) -> None:
    # Until it has its namespaces, the name may still be Google's.
    reach = f"import socket; assert socket.create_connection(({NAMES[0]!r}, 443)).getpeername()[0] == '127.0.0.1'"
    end = time.monotonic() + 60
    while (reached := storage.call(sys.executable, "-S", "-c", reach)).returncode:
        assert process.poll() is None, (storage.folder / "log").read_text()
        assert time.monotonic() < end, reached.stderr
        time.sleep(0.1)


def _write_keys(folder: Path) -> None:
    """Writes the server's certificate with its key, the authority that vouches for it, and a service account's key."""
    authority = trustme.CA()
    server, account = (authority.issue_cert(*NAMES, key_type=trustme.KeyType.RSA) for _ in range(2))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    server.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    described = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "1",
        "private_key": account.private_key_pem.bytes().decode(),
        "client_email": "pipeline@tests.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    (folder / "account.json").write_text(json.dumps(described))
