"""The key of code follows what modules import, and nothing else."""

import shutil
from importlib import metadata

import pytest

from pipeline import source
from pipeline.source import files_reached, source_key

FILES = {
    "house/__init__.py": "",
    "house/hall.py": "import house.kitchen.stove\nfrom house import cellar\n",
    "house/kitchen/__init__.py": "from house.kitchen import sink\n",
    "house/kitchen/stove.py": "def heat():\n    from .pan import fry\n    return fry\n",
    "house/kitchen/pan.py": "from garden.herbs import thyme\n",
    "house/kitchen/sink.py": "from . import tap\n",
    "house/kitchen/tap.py": "",
    "house/cellar.py": "import numpy as np\nSTOCK = 'wine.txt'\n",
    "house/wine.txt": "red",
    "house/beer.txt": "dark",
    "house/attic.py": (
        "import typing\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.hall\n"
        "if typing.TYPE_CHECKING:\n    import scipy\nelse:\n    import garden\n"
    ),
    "garden/__init__.py": "",
    "garden/herbs.py": "from google.protobuf import text_format\nimport os.path\n\ndef thyme(): ...\n",
    "garden/shed.py": "import house.attic\n",
}
# What house.hall runs: its packages, and what it and they import, one after the other.
OF_HALL = {name for name in FILES if name not in ("house/attic.py", "house/beer.txt", "garden/shed.py")}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two packages in place of the project's."""
    folder = tmp_path / "tree"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(source, "ROOT", folder)
    monkeypatch.setattr(source, "PACKAGES", ("garden", "house"))
    return folder


def change_version(monkeypatch, library):
    version = metadata.version
    monkeypatch.setattr(source, "_version", lambda name: "0" if name == library else version(name))


def test_imports_of_every_form_are_followed(tree):
    assert set(files_reached("house.hall")) == OF_HALL


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_reached_changes_the_key_and_no_other_does(name, tree):
    before = source_key("house.hall")
    assert source_key("house.hall") == before
    with (tree / name).open("a") as file:
        file.write("# Changed.\n")
    assert (source_key("house.hall") != before) == (name in OF_HALL)


def test_what_is_for_type_checkers_alone_does_not_count(tree, monkeypatch):
    assert files_reached("house.attic") == ["garden/__init__.py", "house/__init__.py", "house/attic.py"]
    before = source_key("house.attic")
    change_version(monkeypatch, "scipy")
    assert source_key("house.attic") == before


def test_the_place_of_the_sources_does_not_count(tree, monkeypatch):
    before = source_key("house.hall")
    shutil.copytree(tree, tree.parent / "elsewhere")
    monkeypatch.setattr(source, "ROOT", tree.parent / "elsewhere")
    assert source_key("house.hall") == before


def test_a_renamed_file_changes_the_key(tree):
    before = source_key("house")
    (tree / "house" / "attic.py").rename(tree / "house" / "loft.py")
    assert source_key("house") != before


@pytest.mark.parametrize(("library", "counts"), [("numpy", True), ("protobuf", True), ("pandas", False)])
def test_versions_of_imported_libraries_count(library, counts, tree, monkeypatch):
    before = source_key("house.hall")
    change_version(monkeypatch, library)
    assert (source_key("house.hall") != before) == counts


def test_of_libraries_that_share_a_package_the_imported_one_counts():
    assert source._versions(["google.protobuf.text_format"]) == {f"protobuf=={metadata.version('protobuf')}"}


def test_keras_counts_where_tensorflow_is_imported():
    names = {version.split("==")[0] for version in source._versions(["tensorflow"])}
    assert names == {"tensorflow", "tf_keras"}


def test_of_a_librarys_module_its_imports_count(monkeypatch):
    module = "tfx.components.evaluator.executor"
    before = source_key(module)
    assert not files_reached(module)
    change_version(monkeypatch, "tensorflow_model_analysis")
    assert source_key(module) != before


def test_a_package_stands_for_all_its_modules(tree):
    assert {name for name in files_reached("house") if name.startswith("house/")} == {
        name for name in FILES if name.startswith("house/") and name != "house/beer.txt"
    }


def test_a_package_can_be_left_out(tree):
    assert set(files_reached("house.hall", without=["garden"])) == {
        name for name in OF_HALL if name.startswith("house/")
    }


@pytest.mark.parametrize("module", ["house.garage", "no_such_library", "house.cellar.door"])
def test_a_module_that_is_missing_is_an_error(module, tree):
    with pytest.raises(ModuleNotFoundError, match=module):
        source_key(module)
