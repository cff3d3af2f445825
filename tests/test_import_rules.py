"""Modules import downwards only: the contracts of import-linter in pyproject.toml hold."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lint(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_contract_is_kept():
    done = lint("--no-cache")
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_an_import_upwards_and_a_room_without_a_place_are_found(tmp_path):
    """The contract for trainers, on a small tree that breaks it in both ways."""
    package = tmp_path / "house"
    for room in ("layers", "loop", "attic"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "loop" / "fit.py").write_text("from house.layers import tower\n")
    (package / "layers" / "tower.py").write_text("from house.loop import fit\n")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_packages = ["house"]\n\n[[tool.importlinter.contracts]]\nname = "rooms"\n'
        'type = "layers"\ncontainers = ["house"]\nexhaustive = true\nlayers = ["loop", "layers"]\n'
    )
    done = lint("--no-cache", folder=tmp_path)
    assert done.returncode == 1
    assert "house.layers.tower -> house.loop.fit" in done.stdout
    assert "attic" in done.stdout
