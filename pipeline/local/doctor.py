"""Checks whether the machine and the installed packages meet a run's needs, without importing those packages."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from transform import legacy_keras

PROJECT = "movielens-tfx"
# The packages whose versions have to fit together, as {common name: name on PyPI}.
PACKAGES = {
    "TensorFlow": "tensorflow",
    "TFX": "tfx",
    "Beam": "apache-beam",
    "TF Transform": "tensorflow-transform",
    "TF Data Validation": "tensorflow-data-validation",
    "TF Model Analysis": "tensorflow-model-analysis",
    "TF Recommenders": "tensorflow-recommenders",
    "tf-keras": "tf-keras",
    "ML Metadata": "ml-metadata",
    "protobuf": "protobuf",
}
GLIBC = Version("2.39")
DISK_GIB = 2.0
MEMORY_GIB = 4.0
SET_UP = "Run: make setup"


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
      name: what was checked.
      value: what was found.
      ok: whether it is good enough for a run.
      fix: how to fix it if it is not; empty if it is.
    """

    name: str
    value: str
    ok: bool
    fix: str = ""


def examine(folder: Path, environment: Mapping[str, str] = os.environ) -> list[Check]:
    """Checks everything that a run needs.

    Args:
      folder: where a run would write; its disk is the one whose free space is checked.
      environment: the environment variables.
    """
    return [
        check_python(sys.version_info[:3]),
        check_glibc(glibc_version()),
        *(check_package(label, name, expected_version(name)) for label, name in PACKAGES.items()),
        check_legacy_keras(environment),
        check_byte_code(environment),
        check_disk(folder, shutil.disk_usage(folder).free),
        check_memory(available_memory()),
        Check("CPUs", str(len(os.sched_getaffinity(0))), ok=True),
    ]


def check_python(version: tuple[int, int, int]) -> Check:
    text = ".".join(map(str, version))
    if version[:2] == (3, 11):
        return Check("Python", text, ok=True)
    return Check("Python", text, ok=False, fix=f"Should be 3.11. {SET_UP}, which finds or fetches it.")


def check_glibc(version: str | None) -> Check:
    """Checks the version of this process's glibc, which scripts/setup.sh may have put into the environment."""
    if version and Version(version) >= GLIBC:
        return Check("glibc", version, ok=True)
    fix = (
        f"Should be {GLIBC} or newer. {SET_UP}, which puts a newer one in the environment, or use the container image."
    )
    return Check("glibc", version or "none", ok=False, fix=fix)


def check_package(
    label: str, name: str, expected: SpecifierSet, installed: Callable[[str], str] = importlib.metadata.version
) -> Check:
    """Checks that a package is installed in a version that the project supports.

    Args:
      label: the common name of the package, for display.
      name: the name of the package on PyPI.
      expected: the supported versions.
      installed: returns the installed version for a package's name on PyPI.
    """
    try:
        version = installed(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(label, "not installed", ok=False, fix=f"Should be {name}{expected}. {SET_UP}")
    if Version(version) in expected:
        return Check(label, version, ok=True)
    return Check(label, version, ok=False, fix=f"Should be {name}{expected}. {SET_UP}")


def check_legacy_keras(environment: Mapping[str, str]) -> Check:
    value = environment.get(legacy_keras.VARIABLE)
    if value in legacy_keras.ON:
        return Check(legacy_keras.VARIABLE, str(value), ok=True)
    fix = f"Should be 1, since TF Recommenders needs Keras 2. Run: export {legacy_keras.VARIABLE}=1"
    return Check(legacy_keras.VARIABLE, value or "not set", ok=False, fix=fix)


def check_byte_code(environment: Mapping[str, str]) -> Check:
    """Checks that TFX's byte-code is cached or can be; otherwise, each start takes half a minute to compile it."""
    spec = importlib.util.find_spec("tfx")
    if spec is None or spec.origin is None:
        return Check("Byte-code", "TFX is not installed", ok=False, fix=SET_UP)
    if Path(importlib.util.cache_from_source(spec.origin)).exists():
        return Check("Byte-code", "compiled", ok=True)
    if not environment.get("PYTHONDONTWRITEBYTECODE"):
        return Check("Byte-code", "compiled on first use", ok=True)
    fix = "Each start takes half a minute. Run: python -m compileall -q .venv"
    return Check("Byte-code", "not compiled, and PYTHONDONTWRITEBYTECODE is set", ok=False, fix=fix)


def check_disk(folder: Path, free: int) -> Check:
    """Checks the free space, in bytes, of the disk that a run would write to."""
    gib = free / 2**30
    if gib >= DISK_GIB:
        return Check("Free disk", f"{gib:.1f} GiB", ok=True)
    fix = f"Should be {DISK_GIB:g} GiB or more. Free some, or give a run another disk with --output (now {folder})."
    return Check("Free disk", f"{gib:.1f} GiB", ok=False, fix=fix)


def check_memory(available: int) -> Check:
    """Checks the memory, in bytes, that a run could use now."""
    gib = available / 2**30
    if gib >= MEMORY_GIB:
        return Check("Available memory", f"{gib:.1f} GiB", ok=True)
    fix = f"Should be {MEMORY_GIB:g} GiB or more, and 12 GiB for MovieLens 1M. Close other programs."
    return Check("Available memory", f"{gib:.1f} GiB", ok=False, fix=fix)


def expected_version(name: str) -> SpecifierSet:
    """Returns the versions of a package that the project requires, else those that TFX requires, else any version."""
    for distribution in (PROJECT, "tfx"):
        try:
            requirements = [Requirement(text) for text in importlib.metadata.requires(distribution) or []]
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in requirements:
            if requirement.name == name and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                return requirement.specifier
    return SpecifierSet()


def glibc_version() -> str | None:
    """Returns the version of the glibc that this process uses; None if its C library is not glibc."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        return None
    return text.split()[-1] if text else None


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes available without swapping: the machine's, or what a lower limit of the container leaves."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        available = min(available, int(text) - int(used.read_text()))
    return available


def platform_name() -> str:
    """Returns the operating system, its release and the machine's architecture, for display."""
    return f"{platform.system()} {platform.release()} on {platform.machine()}"
