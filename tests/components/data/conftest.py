"""Fixtures: a small, valid data set in the file layout of MovieLens 1M, and small inputs for credits.csv."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.components.data.credits_source import Source

FILES = {
    "users.dat": ["1::F::1::10::48067", "2::M::56::16::70072", "5::M::25::0::98107-2117"],
    "movies.dat": [
        "1::Toy Story (1995)::Animation|Children's|Comedy",
        "2::Jumanji (1995)::Adventure|Children's|Fantasy",
        "73::Misérables, Les (1995)::Drama|Musical",
        "260::Star Wars: Episode IV - A New Hope (1977)::Action|Adventure|Fantasy|Sci-Fi",
    ],
    "ratings.dat": [
        "1::73::5::978300760",
        "1::2::3::978302109",
        "2::1::1::978298413",
        "2::260::4::978298413",
        "5::73::2::978241072",
    ],
    "credits.csv": ["movie_id,director,star", "1,Director 1,Étoile 1", '2,"Director, the 2nd",', "260,,Star 3"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the four valid files in FILES."""
    path = tmp_path / "data"
    path.mkdir()
    for name, lines in FILES.items():
        encoding = "utf-8" if name == "credits.csv" else "latin-1"
        (path / name).write_bytes("".join(line + "\n" for line in lines).encode(encoding))
    return path


@pytest.fixture
def set_line(folder: Path) -> Callable[[str, int, str | bytes], None]:
    """A function that replaces one line (counted from 1) of a file in `folder`."""

    def replace(name: str, line: int, text: str | bytes) -> None:
        path = folder / name
        lines = path.read_bytes().split(b"\n")
        lines[line - 1] = text if isinstance(text, bytes) else text.encode("latin-1")
        path.write_bytes(b"\n".join(lines))

    return replace


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Small versions of links.csv and of IMDb's tables."""
    return Source(tmp_path)
