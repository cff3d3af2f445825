"""Keys of code, for caches: an output is taken for that of the present code only if nothing that made it has changed.

A key is a hash of contents: of the modules that a module imports, directly or not; of the data files that they read;
and of the versions of the libraries that they import. What is read are the sources, not what happens to be loaded, and
no path of this machine is part of a key, so that the same sources have the same key wherever they lie.
"""

import ast
import functools
import hashlib
import importlib.util
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The folder of the project's packages."""

PACKAGES = ("benchmarks", "components", "pipeline", "serving", "trainers", "transform")

# Libraries that decide what others compute, although the modules that import the others need not name them.
_BENEATH = {
    "tensorflow": ("tf_keras",),  # What `tf.keras` is in this project.
    "tensorflow_data_validation": ("apache_beam", "tfx_bsl"),
    "tensorflow_model_analysis": ("tensorflow",),
}
# Nothing but log lines comes from these.
_WITHOUT_EFFECT = ("absl",)


def source_key(*modules: str, without: Collection[str] = ()) -> str:
    """A hash of everything that the outputs of modules depend on, apart from their inputs.

    Args:
      modules: names of modules. A package stands for all modules in it. Of a library's module, its own text is not part
        of the key, only the versions of the libraries that it imports.
      without: packages of the project that are left out, with what only they import.

    Returns:
      16 hexadecimal digits.

    Raises:
      ModuleNotFoundError: there is no such module.
    """
    files, libraries = _reached(modules, without)
    digest = hashlib.sha256()
    for path in sorted(files):
        content = (ROOT / path).read_bytes()
        # Path and length go before the content, so that nothing can slip from one file into the next unnoticed.
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    for version in sorted(_versions(libraries)):
        digest.update(f"{version}\n".encode())
    return digest.hexdigest()[:16]


def component_key() -> str:
    """One key for everything that components run."""
    return source_key("components", "trainers", "transform")


def files_reached(*modules: str, without: Collection[str] = ()) -> list[str]:
    """Paths below `ROOT` of the files that are part of the key of modules; the arguments are those of `source_key`."""
    return sorted(_reached(modules, without)[0])


def _reached(modules: Iterable[str], without: Collection[str]) -> tuple[set[str], set[str]]:
    """The project's files that modules reach, by their paths below `ROOT`, and the names of libraries' modules."""
    files, libraries = set[str](), set[str]()
    left = [name for module in modules for name in _with_submodules(module)]
    seen = set(left)
    while left:
        module = left.pop()
        if module.split(".")[0] in PACKAGES:
            path = _project_file(module)
            if path is None:
                continue  # A name in a module, such as a function, and no module itself.
            files.add(path.relative_to(ROOT).as_posix())
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            imported, texts = _parse(path.read_bytes())
            files.update(_data_files(path.parent, texts))
            names = {importlib.util.resolve_name(name, package) for name in imported}
            found = {parent for name in names for parent in _with_parents(name)}
            libraries |= {name for name in names if name.split(".")[0] not in PACKAGES}
            found = {name for name in found if name.split(".")[0] in PACKAGES and name.split(".")[0] not in without}
        else:
            libraries |= {module, *_imports_of_library(module)}
            found = set()
        left += found - seen
        seen |= found
    return files, libraries


def _with_submodules(module: str) -> Iterator[str]:
    """A module with its packages, and with all that is in it; its own packages run when it is imported."""
    if module.split(".")[0] not in PACKAGES:
        yield module
        return
    path = _project_file(module)
    if path is None:
        raise ModuleNotFoundError(f"{module} should be a module of the project; there is none in {ROOT}.", name=module)
    yield from _with_parents(module)
    if path.name == "__init__.py":
        for file in path.parent.rglob("*.py"):
            *parts, name = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts if name == "__init__" else [*parts, name])


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _project_file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _data_files(folder: Path, texts: frozenset[str]) -> Iterator[str]:
    """Files beside a module that it names in a string, as it does to read them."""
    for file in folder.iterdir():
        if file.name in texts and file.suffix != ".py" and file.is_file():
            yield file.relative_to(ROOT).as_posix()


class _Reader(ast.NodeVisitor):
    """Collects what a module imports, at its top or in its functions, and its strings.

    Of `from a.b import c` both a.b and a.b.c are collected, as c may be a module.
    """

    def __init__(self) -> None:
        self.imported = set[str]()
        self.texts = set[str]()

    def visit_Import(self, node: ast.Import) -> None:
        self.imported.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = "." * node.level + (node.module or "")
        dot = "." if node.module else ""
        self.imported.update([base, *(f"{base}{dot}{alias.name}" for alias in node.names)])

    def visit_If(self, node: ast.If) -> None:
        # What only type checkers read is not run.
        is_for_types = ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"
        for child in node.orelse if is_for_types else [node.test, *node.body, *node.orelse]:
            self.visit(child)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.texts.add(node.value)


# By content, so that a file that changes is read again; the project's modules take a third of a second.
@functools.cache
def _parse(content: bytes) -> tuple[frozenset[str], frozenset[str]]:
    reader = _Reader()
    reader.visit(ast.parse(content))
    return frozenset(reader.imported), frozenset(reader.texts)


@functools.cache
def _imports_of_library(module: str) -> frozenset[str]:
    """What a module of a library imports, without what these modules import in turn."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{module} should be an installed module.", name=module)
    package = module if spec.submodule_search_locations else module.rpartition(".")[0]
    imported, _ = _parse(Path(spec.origin).read_bytes())
    return frozenset(importlib.util.resolve_name(name, package) for name in imported)


def _versions(modules: Iterable[str]) -> set[str]:
    """Names and versions of the libraries that modules belong to, and of those beneath them."""
    left, seen = list(modules), set[str]()
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left += _BENEATH.get(module.split(".")[0], ())
    # The first two names of a module tell its library, also where several share the first, as with `google`.
    places = {"/".join(module.split(".")[:2]) for module in seen}
    names = {name for place in places for name in _distributions(place)}
    return {f"{name}=={_version(name)}" for name in names}


@functools.cache
def _distributions(place: str) -> tuple[str, ...]:
    """The installed distributions that may hold a package, such as `google/protobuf`; none for Python's own."""
    top = place.split("/")[0]
    if top in sys.stdlib_module_names or top in _WITHOUT_EFFECT:
        return ()
    names = tuple(dict.fromkeys(_distributions_by_package().get(top, ())))
    if len(names) == 1:
        return names
    # Of several, those count that have a file there.
    return tuple(name for name in names if re.search(rf"^{place}(/|\.py)", _list_of_files(name), re.MULTILINE))


@functools.cache
def _distributions_by_package() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


@functools.cache
def _list_of_files(distribution: str) -> str:
    return metadata.distribution(distribution).read_text("RECORD") or ""


@functools.cache
def _version(distribution: str) -> str:
    return metadata.version(distribution)
