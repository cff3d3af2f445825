"""The wheel works without a checkout, and the image copies only files that exist."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from components.data.sample import generate_sample

ROOT = Path(__file__).parents[1]
PACKAGES = ("components", "pipeline", "serving", "trainers", "transform")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, built from a copy of its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    program = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    result = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("movielens_tfx-*.whl")
    return path


@pytest.mark.component
def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel):
    expected = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected


def run_installed(wheel: Path, folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code where the wheel is unpacked and the dependencies are there, but no way to the checkout."""
    if not (folder / "site").exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    # With -S, Python reads no .pth files, which make the link to the checkout.
    prelude = f"""
import sys
sys.path[:0] = [{str(folder / "site")!r}]
sys.path.extend({[path for path in sys.path if path.endswith("site-packages")]!r})
"""
    return subprocess.run(
        [sys.executable, "-S", "-c", prelude + program, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


@pytest.mark.component
def test_the_wheel_can_be_imported_without_a_checkout(wheel, tmp_path):
    program = f"""
import importlib, pkgutil
from pipeline.config import load_config, preset_names
assert preset_names() and all(load_config(name).name == name for name in preset_names())
for package in {PACKAGES!r}:
    module = importlib.import_module(package)
    for info in pkgutil.walk_packages(module.__path__, package + "."):
        importlib.import_module(info.name)
ours = [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] in {PACKAGES!r}]
strays = [module.__file__ for module in ours if not module.__file__.startswith({str(tmp_path)!r})]
assert not strays, strays
print(len(ours))
"""
    result = run_installed(wheel, tmp_path, program)
    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout.split()[-1]) > len(PACKAGES)


@pytest.mark.component
def test_a_node_is_compiled_and_run_from_the_wheel(wheel, tmp_path):
    generate_sample(tmp_path / "data", users=60, movies=50, ratings=900)
    file, root = tmp_path / "pipeline.pb", tmp_path / "output"
    commands = [
        ["compile", "--data", str(tmp_path / "data"), "--root", str(root), "--output", str(file)],
        ["run-node", "--pipeline", str(file), "--node", "MovieLensExampleGen", "--run-id", "one"],
    ]
    for command in commands:
        result = run_installed(wheel, tmp_path, "from pipeline.cli import main; main()", *command)
        assert result.returncode == 0, result.stderr
    assert (root / "pipeline" / "MovieLensExampleGen" / "examples").is_dir()
    # Where the code lies differs between machines, so nothing that is compiled may name the place.
    compiled = file.read_bytes() + file.with_suffix(".json").read_bytes()
    assert not [place for place in (tmp_path / "site", ROOT) if str(place).encode() in compiled]


def test_the_image_copies_only_files_of_the_repository_and_the_build_context():
    text = (ROOT / "kubeflow" / "Dockerfile").read_text()
    copies = re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
    sources = [source for copy in copies for source in copy.split()[:-1]]
    assert set(PACKAGES) < set(sources)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in allowed, f"{source} should be in .dockerignore's exceptions"


def test_the_image_sets_legacy_keras_and_does_not_run_as_root():
    final = (ROOT / "kubeflow" / "Dockerfile").read_text().split("\nFROM ")[-1]
    assert "TF_USE_LEGACY_KERAS=1" in final
    assert re.search(r"^USER (?!root|0)", final, re.MULTILINE)
