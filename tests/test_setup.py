"""The set-up script chooses an environment that suits the machine, and leaves no half-made one when interrupted."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Real programs of this machine that the script may use in every test.
REAL_PROGRAMS = [
    *(
        "awk",
        "bash",
        "cat",
        "cp",
        "cut",
        "dirname",
        "env",
        "flock",
        "grep",
        "head",
        "id",
        "ls",
        "mkdir",
        "mv",
        "printf",
    ),
    *("pwd", "readlink", "rm", "sed", "sha256sum", "sleep", "sort", "touch", "tr"),
]

FAKE_PYTHON = """#!/bin/bash
[[ "$*" == *sys.base_prefix* ]] && echo "${0%/bin/*}"
[[ "$*" == *"-m pip"* ]] && exit 1
exit 0
"""
# A fake uv that makes an environment. `uv sync` takes 30 seconds if the file $UV_LOG.slow exists, and fails if
# $UV_LOG.broken does.
FAKE_UV = """#!/bin/bash
echo "$*" >> "$UV_LOG"
case "$1" in
  --version) echo "uv 0.13.0" ;;
  venv) mkdir -p "${@: -1}/bin"; cp "$FAKE_PYTHON" "${@: -1}/bin/python" ;;
  sync)
    [[ -n "$UV_PROJECT_ENVIRONMENT" ]] || exit 1
    touch "$UV_PROJECT_ENVIRONMENT/begun"
    if [[ -e "$UV_LOG.slow" ]]; then sleep 30; fi
    if [[ -e "$UV_LOG.broken" ]]; then exit 1; fi
    touch "$UV_PROJECT_ENVIRONMENT/complete" ;;
  *) exit 1 ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Machine:
    """A simulated machine: a checkout with the set-up script, and a PATH with few programs and what a test provides."""

    def __init__(self, folder: Path):
        self.bin = folder / "bin"
        self.project = folder / "project"
        self.venv = self.project / ".venv"
        self.os_release = folder / "os-release"
        self.log = folder / "uv.log"
        self.bin.mkdir()
        for name in REAL_PROGRAMS:
            found = shutil.which(name)
            assert found, f"these tests need {name}"
            (self.bin / name).symlink_to(found)
        (self.project / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup.sh", self.project / "scripts")
        for name in ("pyproject.toml", "uv.lock", "setup.py"):
            (self.project / name).write_text(f"{name}\n")
        self.python = executable(folder / "python" / "bin" / "python3.11", FAKE_PYTHON)
        self.pretend()

    def pretend(
        self, *, system: str = "Linux", machine: str = "x86_64", glibc: str = "glibc 2.41", os: str = "debian"
    ) -> None:
        uname = f'#!/bin/bash\n[[ $1 == -s ]] && echo "{system}" || echo "{machine}"\n'
        executable(self.bin / "uname", uname)
        executable(self.bin / "getconf", f"#!/bin/bash\n[[ -n '{glibc}' ]] && echo '{glibc}'\n")
        self.os_release.write_text(f'ID={os}\nVERSION_CODENAME="bookworm"\n')

    def provide(self, *names: str, text: str = "#!/bin/bash\nexit 1\n") -> None:
        for name in names:
            executable(self.bin / name, text)

    def provide_python_and_uv(self) -> None:
        self.provide("python3.11", text=f'#!/bin/bash\nexec "{self.python}" "$@"\n')
        self.provide("uv", text=FAKE_UV)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "HOME": str(self.bin.parent),
            "OS_RELEASE": str(self.os_release),
            "UV_LOG": str(self.log),
            "FAKE_PYTHON": str(self.python),
        }

    def command(self, *arguments: str) -> list[str]:
        return [str(self.bin / "bash"), str(self.project / "scripts" / "setup.sh"), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), env=self.environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def uv_calls(self, verb: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.split()[0] == verb]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_new_glibc_means_a_plain_environment(machine):
    machine.pretend(glibc="glibc 2.39", os="fedora")
    machine.provide_python_and_uv()
    result = machine.run("--explain")
    assert result.returncode == 0, result.stderr
    assert "environment: plain" in result.stdout
    assert f"Python 3.11: {machine.python}" in result.stdout
    assert f"uv: {machine.bin}/uv" in result.stdout
    assert "extras: base" in result.stdout


@pytest.mark.parametrize(("os", "suite"), [("debian", "trixie"), ("ubuntu", "noble")])
def test_an_old_glibc_with_apt_means_newer_runtimes(machine, os, suite):
    machine.pretend(glibc="glibc 2.36", os=os)
    machine.provide("apt-get", "dpkg-deb")
    result = machine.run("--explain")
    assert result.returncode == 0, result.stderr
    assert f"on newer runtimes ({suite} of {os})" in result.stdout


@pytest.mark.parametrize(
    ("pretended", "provided", "missing"),
    [
        ({"glibc": "glibc 2.36"}, [], "apt-get"),
        ({"glibc": "glibc 2.36"}, ["apt-get"], "dpkg-deb"),
        ({"glibc": "glibc 2.34", "os": "rocky"}, ["apt-get", "dpkg-deb"], "'rocky'"),
        ({"system": "Darwin", "machine": "arm64"}, [], "Darwin on arm64"),
        ({"machine": "aarch64"}, ["apt-get", "dpkg-deb"], "Linux on aarch64"),
        ({"glibc": ""}, [], "musl"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("--explain",)])
def test_an_unsuitable_machine_is_told_what_is_missing_and_which_image_to_use(
    machine, pretended, provided, missing, arguments
):
    machine.pretend(**pretended)
    machine.provide(*provided)
    machine.provide_python_and_uv()
    result = machine.run(*arguments)
    assert result.returncode == 1
    assert missing in result.stderr
    assert "docker build -f kubeflow/Dockerfile" in result.stderr
    assert not machine.venv.exists()
    assert machine.uv_calls("sync") == []


def test_a_python_of_pyenv_is_found_if_it_is_not_on_the_path(machine):
    python = executable(machine.bin.parent / ".pyenv" / "versions" / "3.11.7" / "bin" / "python3.11", FAKE_PYTHON)
    # pyenv's launchers exit with 127 if no version is chosen.
    machine.provide("python3.11", text="#!/bin/bash\nexit 127\n")
    assert f"Python 3.11: {python}" in machine.run("--explain").stdout


def test_an_old_uv_is_not_used(machine):
    machine.provide_python_and_uv()
    machine.provide("uv", text="#!/bin/bash\necho 'uv 0.4.30'\n")
    assert "uv: none" in machine.run("--explain").stdout


def test_an_unknown_argument_is_a_usage_error(machine):
    result = machine.run("--everything")
    assert result.returncode == 2
    assert "--everything" in result.stderr


def test_missing_uv_and_pip_are_reported(machine):
    machine.pretend(os="fedora")
    machine.provide("python3.11", text=f'#!/bin/bash\nexec "{machine.python}" "$@"\n')
    result = machine.run()
    assert result.returncode == 1
    assert "uv is missing" in result.stderr
    assert not machine.venv.exists()


def test_the_second_call_does_nothing(machine):
    machine.provide_python_and_uv()
    first = machine.run()
    assert first.returncode == 0, first.stderr
    assert (machine.venv / "complete").exists()
    calls = machine.log.read_text()
    begun = time.monotonic()
    second = machine.run()
    assert time.monotonic() - begun < 2
    assert (second.returncode, second.stderr, machine.log.read_text()) == (0, "", calls)


def test_extras_are_added_once_and_then_no_call_installs_anything(machine):
    machine.provide_python_and_uv()
    machine.run()
    machine.run("--all-extras")
    assert ["--all-extras" in call for call in machine.uv_calls("sync")] == [False, True]
    machine.run()
    machine.run("--all-extras")
    assert len(machine.uv_calls("sync")) == 2


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml", "setup.py"])
def test_a_changed_input_updates_the_environment_and_keeps_the_extras(machine, name):
    machine.provide_python_and_uv()
    machine.run("--all-extras")
    (machine.project / name).write_text("changed\n")
    assert machine.run().returncode == 0
    assert ["--all-extras" in call for call in machine.uv_calls("sync")] == [True, True]


@pytest.mark.parametrize("before", ["nothing", "an environment"])
def test_an_interruption_leaves_no_half_made_environment_and_the_next_call_completes(machine, before):
    machine.provide_python_and_uv()
    if before == "an environment":
        assert machine.run().returncode == 0
        (machine.project / "uv.lock").write_text("changed\n")
        (machine.venv / "begun").unlink()
    slow = Path(f"{machine.log}.slow")
    slow.touch()
    process = machine.start()
    partial = machine.project / ".venv.partial"
    wait_for((partial / "begun").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)
    if before == "nothing":
        assert not machine.venv.exists()
    else:
        assert (machine.venv / "complete").exists()
        assert not (machine.venv / "begun").exists()
    slow.unlink()
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert (machine.venv / "complete").exists()
    assert (machine.venv / "begun").exists()
    assert not partial.exists()


def test_a_failed_installation_leaves_nothing_and_fails(machine):
    machine.provide_python_and_uv()
    Path(f"{machine.log}.broken").touch()
    result = machine.run()
    assert result.returncode == 1
    assert "could not install" in result.stderr
    assert [path.name for path in machine.project.glob(".venv*")] == []


def test_two_calls_at_once_make_one_environment(machine):
    machine.provide_python_and_uv()
    slow = Path(f"{machine.log}.slow")
    slow.touch()
    first = machine.start()
    wait_for((machine.project / ".venv.partial" / "begun").exists)
    second = machine.start()
    assert second.stderr is not None
    assert "waiting" in second.stderr.readline()
    os.killpg(first.pid, signal.SIGTERM)
    first.wait(timeout=20)
    slow.unlink()
    assert second.wait(timeout=40) == 0
    assert (machine.venv / "complete").exists()


def test_a_failed_download_of_packages_is_reported_and_leaves_nothing(machine):
    machine.pretend(glibc="glibc 2.36")
    machine.provide_python_and_uv()
    machine.provide("apt-get", "dpkg-deb")
    result = machine.run()
    assert result.returncode == 1
    assert "the environment cannot be made" in result.stderr
    assert [path.name for path in machine.project.glob(".venv*")] == []
    assert list((machine.project / ".toolchain").iterdir()) == []
