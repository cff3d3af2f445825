"""`movielens doctor` finds what is wrong with an environment, says how to fix it, and imports no large framework."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from pipeline.commands import doctor as command
from pipeline.local import doctor

GIB = 2**30


@pytest.fixture
def app() -> typer.Typer:
    """An application whose only command is `doctor`."""
    app = typer.Typer()
    app.command()(command.doctor)
    return app


def test_this_environment_has_the_required_packages(tmp_path):
    checks = {check.name: check for check in doctor.examine(tmp_path)}
    for label, name in doctor.PACKAGES.items():
        assert checks[label].ok, checks[label]
        assert checks[label].value == importlib.metadata.version(name)
    assert checks["Python"].ok
    assert checks["glibc"].ok
    assert checks["TF_USE_LEGACY_KERAS"].ok
    assert int(checks["CPUs"].value) >= 1


@pytest.mark.parametrize("name", doctor.PACKAGES.values())
def test_every_package_has_an_expected_version(name):
    assert str(doctor.expected_version(name)), f"{name} should be asked for by the project or by TFX"


@pytest.mark.parametrize(
    ("check", "names"),
    [
        (doctor.check_python((3, 12, 1)), "3.11"),
        (doctor.check_glibc("2.36"), "2.39"),
        (doctor.check_glibc(None), "2.39"),
        (doctor.check_legacy_keras({}), "export TF_USE_LEGACY_KERAS=1"),
        (doctor.check_legacy_keras({"TF_USE_LEGACY_KERAS": "0"}), "export TF_USE_LEGACY_KERAS=1"),
        (doctor.check_disk(Path("/data"), GIB), "/data"),
        (doctor.check_memory(3 * GIB), "4 GiB"),
    ],
)
def test_a_problem_comes_with_its_fix(check, names):
    assert not check.ok
    assert names in check.fix


@pytest.mark.parametrize(
    "check",
    [
        doctor.check_python((3, 11, 2)),
        doctor.check_glibc("2.39"),
        doctor.check_glibc("2.41"),
        doctor.check_legacy_keras({"TF_USE_LEGACY_KERAS": "1"}),
        doctor.check_disk(Path("/data"), 50 * GIB),
        doctor.check_memory(8 * GIB),
    ],
)
def test_sufficient_values_are_no_problem(check):
    assert check.ok
    assert check.fix == ""


def test_a_package_of_another_version_is_a_problem():
    expected = SpecifierSet("==1.21.*")
    assert doctor.check_package("TFX", "tfx", expected, lambda name: "1.21.3").ok
    check = doctor.check_package("TFX", "tfx", expected, lambda name: "1.16.0")
    assert (check.ok, check.value) == (False, "1.16.0")
    assert "tfx==1.21.*" in check.fix


def test_a_missing_package_is_a_problem():
    check = doctor.check_package("TFX", "no-such-package-anywhere", SpecifierSet("==1.21.*"))
    assert (check.ok, check.value) == (False, "not installed")


def test_available_memory_respects_the_limit_of_a_container(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n")
    assert doctor.available_memory(meminfo, tmp_path / "none") == 16 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{GIB}\n")
    assert doctor.available_memory(meminfo, tmp_path) == 16 * GIB
    (tmp_path / "memory.max").write_text(f"{4 * GIB}\n")
    assert doctor.available_memory(meminfo, tmp_path) == 3 * GIB


def test_missing_byte_code_is_a_problem_only_where_python_may_not_write_it(tmp_path, monkeypatch):
    (tmp_path / "tfx").mkdir()
    (tmp_path / "tfx" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tfx", raising=False)
    assert doctor.check_byte_code({}).ok
    assert not doctor.check_byte_code({"PYTHONDONTWRITEBYTECODE": "1"}).ok


def test_the_command_shows_every_check_and_exits_with_0_when_all_is_well(app, monkeypatch):
    checks = [doctor.Check("Python", "3.11.7", ok=True), doctor.Check("TFX", "1.21.0", ok=True)]
    monkeypatch.setattr(command, "examine", lambda folder: checks)
    result = CliRunner().invoke(app)
    assert result.exit_code == 0
    assert all(check.name in result.output and check.value in result.output for check in checks)


def test_the_command_shows_the_fix_and_exits_with_1_when_something_is_wrong(app, monkeypatch):
    checks = [doctor.Check("glibc", "2.36", ok=False, fix="Should be [2.39] or newer.")]
    monkeypatch.setattr(command, "examine", lambda folder: checks)
    result = CliRunner().invoke(app)
    assert result.exit_code == 1
    assert "Should be [2.39] or newer." in result.output


def test_the_command_imports_neither_tensorflow_nor_tfx():
    program = (
        "import sys, pathlib; from pipeline.commands import doctor; doctor.examine(pathlib.Path.cwd());"
        "print(sorted({'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
