"""The reader of the raw files refuses what the schema would refuse, so that bad values are found in their line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.data.raw_files import DataError, read_movielens
from transform.features import FEATURES, Role
from transform.schema import PATH

SCHEMA = {feature.name: feature for feature in text_format.Parse(PATH.read_text(), schema_pb2.Schema()).feature}
# These are made of the raw columns, not read: their domains are those of movie_id and rating.
MADE = {feature.name for feature in FEATURES if feature.role in (Role.HISTORY, Role.ORDER, Role.EVALUATION)}

# For each raw column, the line of `folder` that holds it, with a place for the value.
COLUMNS = {
    "user_id": ("users.dat", "{}::F::1::10::48067"),
    "gender": ("users.dat", "2::{}::56::16::70072"),
    "age": ("users.dat", "2::M::{}::16::70072"),
    "occupation": ("users.dat", "2::M::56::{}::70072"),
    "zip_code": ("users.dat", "2::M::56::16::{}"),
    "movie_id": ("movies.dat", "{}::Jumanji (1995)::Adventure"),
    "title": ("movies.dat", "2::{} (1995)::Adventure"),
    "release_year": ("movies.dat", "2::Jumanji ({:0>4})::Adventure"),
    "genres": ("movies.dat", "2::Jumanji (1995)::{}"),
    "director": ("credits.csv", "2,{},"),
    "star": ("credits.csv", "2,,{}"),
    "rating": ("ratings.dat", "1::73::{}::978300760"),
    "timestamp": ("ratings.dat", "1::73::5::{}"),
}
PLACES = {"users.dat": 1, "movies.dat": 1, "credits.csv": 2, "ratings.dat": 0}
# Where the reader is stricter than the schema: the largest value that it takes, and the schema's.
STRICTER = {
    "user_id": (2**63 - 1, None),
    "movie_id": (2**63 - 1, None),
    "timestamp": (253_402_300_799, None),  # The end of the year 9999.
}

Accepts = Callable[[str, object], bool]


@pytest.fixture
def accepts(folder: Path) -> Accepts:
    """Tells whether the reader takes a value of a column."""

    def check(name: str, value: object) -> bool:
        file, line = COLUMNS[name]
        content = (folder / file).read_bytes()
        rows = content.splitlines()
        # An id comes as a further row, so that nothing refers to the one that it would replace.
        place = len(rows) if name in ("user_id", "movie_id") else PLACES[file]
        rows[place : place + 1] = [line.format(value).encode("latin-1")]
        (folder / file).write_bytes(b"\n".join(rows) + b"\n")
        try:
            bad_rows = read_movielens(folder, tolerance=1.0).bad_rows
        finally:
            (folder / file).write_bytes(content)
        return (file, place + 1) not in {(bad.file.name, bad.line) for bad in bad_rows}

    return check


def bounds(name: str) -> tuple[float | None, float | None]:
    """The smallest and the largest value that the schema takes; None without a bound."""
    domain = SCHEMA[name].WhichOneof("domain_info")
    if domain not in ("int_domain", "float_domain"):
        return None, None
    value = getattr(SCHEMA[name], domain)
    return tuple(getattr(value, side) if value.HasField(side) else None for side in ("min", "max"))  # type: ignore[return-value]


def test_every_column_of_the_schema_is_tried():
    assert set(SCHEMA) == set(COLUMNS) | MADE
    assert (bounds("history_ratings"), bounds("seen_movie_ids")) == (bounds("rating"), bounds("movie_id"))
    assert bounds("history_movie_ids") == bounds("movie_id")
    assert bounds("history_timestamps") == bounds("timestamp")


@pytest.mark.parametrize("name", [name for name in COLUMNS if bounds(name) != (None, None)])
def test_the_numbers_of_the_schema_are_those_of_the_reader(accepts, name):
    low, high = bounds(name)
    assert low is not None
    # A bound of an id is tried with numbers that no other row has.
    first = int(low) + (2 if name in ("user_id", "movie_id") else 0)
    assert accepts(name, first)
    assert not accepts(name, int(low) - 1)
    if name in STRICTER:
        most, high_of_schema = STRICTER[name]
        assert high == high_of_schema
        assert accepts(name, most)
        assert not accepts(name, most + 1)
    else:
        assert high is not None
        assert accepts(name, int(high))
        assert not accepts(name, int(high) + 1)
    assert not accepts(name, "")
    assert not accepts(name, f"{first}.5")


@pytest.mark.parametrize("name", [name for name in COLUMNS if SCHEMA[name].HasField("string_domain")])
def test_the_words_of_the_schema_are_those_of_the_reader(accepts, name):
    words = list(SCHEMA[name].string_domain.value)
    assert all(accepts(name, word) for word in words)
    assert not accepts(name, "Another")
    assert not accepts(name, words[0].lower())
    if SCHEMA[name].value_count.max > 1:
        assert len(words) == SCHEMA[name].value_count.max
        assert accepts(name, "|".join(words))
        assert not accepts(name, "|".join([*words, words[0]]))


@pytest.mark.parametrize("name", [feature.name for feature in FEATURES if feature.codes])
def test_the_codes_are_those_of_the_reader(accepts, name):
    (codes,) = (feature.codes for feature in FEATURES if feature.name == name)
    assert [value for value in range(codes[0] - 1, codes[-1] + 2) if accepts(name, value)] == list(codes)


@pytest.mark.parametrize("name", COLUMNS)
def test_what_the_schema_wants_in_every_row_may_not_be_blank(accepts, name):
    assert accepts(name, "") == (not SCHEMA[name].HasField("presence"))


def test_a_year_out_of_range_is_named_with_its_line_and_the_range(folder, set_line):
    for year in (1879, 2101, 1500, 3000, "0000"):
        set_line("movies.dat", 2, f"2::Jumanji ({year})::Adventure")
        expected = rf"movies\.dat:2: release_year should be an integer from 1880 to 2100; received '{year}'"
        with pytest.raises(DataError, match=expected):
            read_movielens(folder)
