"""What a run needs of the machine and of the installed packages, checked without importing any of them."""

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
# The packages that decide whether the stack works together, by the name that people know them by.
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
    """One thing that was looked at.

    Attributes:
      name: what was looked at.
      value: what was found.
      ok: whether a run can do with it.
      fix: what to do where it cannot; empty where it can.
    """

    name: str
    value: str
    ok: bool
    fix: str = ""


def examine(folder: Path, environment: Mapping[str, str] = os.environ) -> list[Check]:
    """Looks at everything a run needs.

    Args:
      folder: where a run would write; the disk that holds it is measured.
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
    """The C library that this process runs on, which set-up may have put beside the machine's."""
    if version and Version(version) >= GLIBC:
        return Check("glibc", version, ok=True)
    fix = (
        f"Should be {GLIBC} or newer. {SET_UP}, which puts a newer one in the environment, or use the container image."
    )
    return Check("glibc", version or "none", ok=False, fix=fix)


def check_package(
    label: str, name: str, expected: SpecifierSet, installed: Callable[[str], str] = importlib.metadata.version
) -> Check:
    """Whether a package is there, in a version that the project was made for.

    Args:
      label: the package's name for people.
      name: its name on PyPI.
      expected: the versions that will do.
      installed: gives a package's version.
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
    """Whether TFX is compiled; where it is not, and must not be, each start takes half a minute."""
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
    """Free space, in bytes, of the disk that a run would write to."""
    gib = free / 2**30
    if gib >= DISK_GIB:
        return Check("Free disk", f"{gib:.1f} GiB", ok=True)
    fix = f"Should be {DISK_GIB:g} GiB or more. Free some, or give a run another disk with --output (now {folder})."
    return Check("Free disk", f"{gib:.1f} GiB", ok=False, fix=fix)


def check_memory(available: int) -> Check:
    """Memory, in bytes, that a run could have now."""
    gib = available / 2**30
    if gib >= MEMORY_GIB:
        return Check("Available memory", f"{gib:.1f} GiB", ok=True)
    fix = f"Should be {MEMORY_GIB:g} GiB or more, and 12 GiB for MovieLens 1M. Close other programs."
    return Check("Available memory", f"{gib:.1f} GiB", ok=False, fix=fix)


def expected_version(name: str) -> SpecifierSet:
    """The versions of a package that the project asks for or, where it says nothing, TFX; any where neither does."""
    for asker in (PROJECT, "tfx"):
        try:
            requirements = [Requirement(text) for text in importlib.metadata.requires(asker) or []]
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in requirements:
            if requirement.name == name and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                return requirement.specifier
    return SpecifierSet()


def glibc_version() -> str | None:
    """The version of the running glibc; None where the C library is another."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        return None
    return text.split()[-1] if text else None


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can be had without swapping: the machine's, or the container's where that has a lower limit."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        available = min(available, int(text) - int(used.read_text()))
    return available


def platform_name() -> str:
    """The machine, in a few words."""
    return f"{platform.system()} {platform.release()} on {platform.machine()}"
