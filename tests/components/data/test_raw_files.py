"""`read_movielens` returns typed tables of valid files, and reports bad rows with their file, line and value."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest

from components.data.bad_rows import count_by_kind
from components.data.ratings_file import Lines, parse_columns, parse_row
from components.data.raw_files import DataError, read_movielens


def test_reads_every_column_with_its_type(folder):
    data = read_movielens(folder)
    pd.testing.assert_frame_equal(
        data.ratings,
        pd.DataFrame(
            {
                "user_id": [1, 1, 2, 2, 5],
                "movie_id": [73, 2, 1, 260, 73],
                "rating": np.array([5, 3, 1, 4, 2], np.float32),
                "timestamp": [978300760, 978302109, 978298413, 978298413, 978241072],
            }
        ),
    )
    assert data.users.to_dict("list") == {
        "user_id": [1, 2, 5],
        "gender": ["F", "M", "M"],
        "age": [1, 56, 25],
        "occupation": [10, 16, 0],
        "zip_code": ["48067", "70072", "98107-2117"],
    }
    assert data.movies["title"][2] == "Misérables, Les (1995)"
    assert data.movies["release_year"].tolist() == [1995, 1995, 1995, 1977]
    assert data.movies["genres"][0] == ["Animation", "Children's", "Comedy"]
    assert data.credits is not None
    assert data.credits.to_dict("list") == {
        "movie_id": [1, 2, 260],
        "director": ["Director 1", "Director, the 2nd", None],
        "star": ["Étoile 1", None, "Star 3"],
    }


def test_credits_are_optional(folder):
    (folder / "credits.csv").unlink()
    assert read_movielens(folder).credits is None


def test_windows_line_ends_and_a_last_line_without_line_end_are_accepted(folder):
    expected = read_movielens(folder)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    received = read_movielens(folder)
    for name in ("ratings", "users", "movies", "credits"):
        pd.testing.assert_frame_equal(getattr(received, name), getattr(expected, name))


@pytest.mark.parametrize("name", ["users.dat", "movies.dat", "ratings.dat"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"^{name}: should be in .*; no such file\.$") as caught:
        read_movielens(folder)
    assert (caught.value.file, caught.value.line, caught.value.value) == (folder / name, None, None)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"should be a folder with users\.dat, movies\.dat and ratings\.dat"):
        read_movielens(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"…: should be a folder that can be read; File name too long\.$") as caught:
        read_movielens(tmp_path / ("x" * 5000))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["users.dat", "movies.dat", "ratings.dat", "credits.csv"])
def test_an_empty_file_is_refused(folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"^{name}: should have at least one row; the file is empty\.$"):
        read_movielens(folder)


def test_an_unreadable_file_is_refused(folder):
    (folder / "ratings.dat").unlink()
    (folder / "ratings.dat").mkdir()
    with pytest.raises(
        DataError, match=r"^ratings\.dat: should be a readable file; it is a folder, a pipe or a device"
    ):
        read_movielens(folder)
    (folder / "ratings.dat").rmdir()
    os.mkfifo(folder / "ratings.dat")  # Reading it would wait for somebody who writes.
    with pytest.raises(
        DataError, match=r"^ratings\.dat: should be a readable file; it is a folder, a pipe or a device"
    ):
        read_movielens(folder)


# File, line number, text that replaces the line, value that the error quotes, and a part of the error's message.
BAD_LINES = [
    ("ratings.dat", 3, "2::1::1", "2::1::1", "4 fields"),
    ("ratings.dat", 3, "2::1::1::978298413::9", "2::1::1::978298413::9", "4 fields"),
    ("ratings.dat", 3, "2:1::1::978298413", "2:1::1::978298413", "4 fields"),
    ("ratings.dat", 3, "2:1:1::1::978298413", "2:1:1::1::978298413", "4 fields"),
    ("ratings.dat", 3, "2,1,1,978298413", "2,1,1,978298413", "4 fields"),
    ("ratings.dat", 3, "", "", "blank"),
    ("ratings.dat", 2, "   ", "   ", "blank"),
    ("ratings.dat", 3, "2::1::7::978298413", "7", "rating should be an integer from 1 to 5"),
    ("ratings.dat", 3, "2::1::0::978298413", "0", "rating should be"),
    ("ratings.dat", 3, "2::1::3.5::978298413", "3.5", "rating should be"),
    ("ratings.dat", 3, "2::1::::978298413", "", "rating should be"),
    ("ratings.dat", 3, "2::1::³::978298413", "³", "rating should be"),
    ("ratings.dat", 3, "2::1:::978298413", "2::1:::978298413", "4 fields"),
    ("ratings.dat", 3, "2::1::1::0", "0", "timestamp should be"),
    ("ratings.dat", 3, "2::1::1::-978298413", "-978298413", "timestamp should be"),
    ("ratings.dat", 3, "2::1::1::99999999999999999999", "99999999999999999999", "timestamp should be"),
    ("ratings.dat", 3, "2::1::1::978298413000", "978298413000", "timestamp should be"),
    ("ratings.dat", 3, "2::1::1::978298413 ", "978298413 ", "timestamp should be"),
    ("ratings.dat", 3, "2::1::1::2001-01-01", "2001-01-01", "timestamp should be"),
    ("ratings.dat", 3, "3::1::1::978298413", "3", "user_id should be in users.dat"),
    ("ratings.dat", 3, "2::3::1::978298413", "3", "movie_id should be in movies.dat"),
    ("ratings.dat", 3, "0::1::1::978298413", "0", "user_id should be a positive integer"),
    ("ratings.dat", 3, "x::1::1::978298413", "x", "user_id should be a positive integer"),
    ("ratings.dat", 3, "9223372036854775808::1::1::1", "9223372036854775808", "user_id should be a positive integer"),
    # 2**64 + 2: a parser that kept only the low 64 bits would take it for the known user 2.
    ("ratings.dat", 3, "18446744073709551618::1::1::1", "18446744073709551618", "user_id should be a positive integer"),
    ("ratings.dat", 3, "1::73::4::978300999", "1::73", "line 1 has this pair"),
    ("ratings.dat", 3, b"2::1::1::978298413\r\r", "2::1::1::978298413\r", "printable latin-1"),
    ("ratings.dat", 3, b"2::1::1::97829\x008413", "2::1::1::97829\x008413", "printable latin-1"),
    ("users.dat", 2, "2::M::56::16", "2::M::56::16", "5 fields"),
    ("users.dat", 2, "2::m::56::16::70072", "m", "gender should be M or F"),
    ("users.dat", 2, "2::M::57::16::70072", "57", "1, 18, 25, 35, 45, 50, 56"),
    ("users.dat", 2, "2::M::56::21::70072", "21", "occupation should be an integer from 0 to 20"),
    ("users.dat", 2, "2::M::56::16::", "", "zip_code should be"),
    ("users.dat", 3, "1::M::25::0::98107", "1", "user_id should be unique, and line 1 has it"),
    ("users.dat", 1, "", "", "blank"),
    ("movies.dat", 2, "2::Jumanji (1995)", "2::Jumanji (1995)", "3 fields"),
    ("movies.dat", 2, "2::Jumanji::Adventure", "Jumanji", "title should end with its year"),
    ("movies.dat", 2, "2::Jumanji (1995) ::Adventure", "Jumanji (1995) ", "title should end with its year"),
    ("movies.dat", 2, "2:::Jumanji (1995)::Adventure", ":Jumanji (1995)", "title should"),
    ("movies.dat", 2, "2::Jumanji (1995)::Adventure|Childrens", "Childrens", "a genre should be one of Action, "),
    ("movies.dat", 2, "2::Jumanji (1995)::", "", "a genre should be"),
    ("movies.dat", 2, "2::Jumanji (1995)::War|War", "War|War", "genre once"),
    ("movies.dat", 4, "1::Star Wars (1977)::Action", "1", "movie_id should be unique, and line 1 has it"),
    ("movies.dat", 3, b"73::Mis\xc3\xa9rables, Les (1995)::Drama", "73::Misérables, Les (1995)::Drama", "is UTF-8"),
    ("movies.dat", 1, b"\xef\xbb\xbf1::Toy Story (1995)::Comedy", "\ufeff1::Toy Story (1995)::Comedy", "is UTF-8"),
    ("credits.csv", 1, "1,Director 1,Star 1", "1,Director 1,Star 1", "movie_id,director,star"),
    ("credits.csv", 2, b"1,Ren\xe9 1,Star 1", "1,René 1,Star 1", "should be UTF-8"),
    ("credits.csv", 2, "9,Director 1,Star 1", "9", "movie_id should be in movies.dat"),
    ("credits.csv", 3, "1,Director 1,Star 1", "1", "movie_id should be unique, and line 2 has it"),
    ("credits.csv", 3, "2,Director, the 2nd,", "2,Director, the 2nd,", "3 fields"),
    ("credits.csv", 3, '2,"Director,', '2,"Director,', "CSV"),
    ("credits.csv", 3, "", "", "blank"),
]


@pytest.mark.parametrize(("name", "line", "text", "value", "message"), BAD_LINES)
def test_a_bad_line_is_reported_with_its_number_and_value(folder, set_line, name, line, text, value, message):
    set_line(name, line, text)
    with pytest.raises(DataError) as caught:
        read_movielens(folder)
    error = caught.value
    assert (error.file, error.line, error.value) == (folder / name, line, value)
    # The error also reports the ratings that refer to the bad row.
    (reported,) = [part for part in str(error).split("\n") if part.startswith(f"{name}:{line}: ")]
    assert message in reported
    assert reported.endswith(f"; received {value!r}.")


def test_a_single_bad_row_gives_a_message_of_one_line(folder, set_line):
    set_line("ratings.dat", 4, "2::260::7::978298413")
    with pytest.raises(DataError) as caught:
        read_movielens(folder)
    assert str(caught.value) == "ratings.dat:4: rating should be an integer from 1 to 5; received '7'."


def test_every_bad_row_is_counted_by_kind_and_the_first_of_each_are_shown(folder, set_line):
    set_line("users.dat", 3, "5::X::25::0::98107-2117")
    set_line("ratings.dat", 1, "1::2::9::978300760\n1::2::8::1\n1::2::7::1\n1::2::6::1")
    with pytest.raises(DataError) as caught:
        read_movielens(folder)
    assert str(caught.value).split("\n") == [
        "users.dat: no row should be bad; 1 of 3 are (unknown gender: 1).",
        "ratings.dat: no row should be bad; 5 of 8 are (rating out of range: 4, unknown user: 1).",
        "users.dat:3: gender should be M or F; received 'X'.",
        "ratings.dat:1: rating should be an integer from 1 to 5; received '9'.",
        "ratings.dat:2: rating should be an integer from 1 to 5; received '8'.",
        "ratings.dat:3: rating should be an integer from 1 to 5; received '7'.",
        "ratings.dat:8: user_id should be in users.dat; received '5'.",
    ]
    assert (caught.value.file, caught.value.line) == (folder / "users.dat", 3)


def test_tolerated_rows_are_left_out_with_all_that_refer_to_them(folder, set_line):
    whole = read_movielens(folder)
    set_line("movies.dat", 3, "73::Misérables, Les::Drama|Musical")
    set_line("ratings.dat", 4, "2::260::4")
    data = read_movielens(folder, tolerance=0.6)
    assert [(row.file.name, row.line, row.kind, row.text) for row in data.bad_rows] == [
        ("movies.dat", 3, "title without year", "73::Misérables, Les::Drama|Musical"),
        ("ratings.dat", 1, "unknown movie", "1::73::5::978300760"),
        ("ratings.dat", 4, "wrong number of fields", "2::260::4"),
        ("ratings.dat", 5, "unknown movie", "5::73::2::978241072"),
    ]
    assert count_by_kind(data.bad_rows) == {"unknown movie": 2, "title without year": 1, "wrong number of fields": 1}
    pd.testing.assert_frame_equal(data.ratings, whole.ratings.iloc[[1, 2]].reset_index(drop=True))
    pd.testing.assert_frame_equal(data.movies, whole.movies.drop(index=2).reset_index(drop=True))
    pd.testing.assert_frame_equal(data.users, whole.users)
    # Files that never had the left-out rows give the same tables.
    for name, lines in (("movies.dat", [3]), ("ratings.dat", [1, 4, 5])):
        kept = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join(text for line, text in enumerate(kept, start=1) if line not in lines))
    for name in ("ratings", "users", "movies", "credits"):
        pd.testing.assert_frame_equal(getattr(read_movielens(folder), name), getattr(data, name))


@pytest.mark.parametrize(("tolerance", "is_enough"), [(0.0, False), (0.39, False), (0.4, True), (1.0, True)])
def test_the_tolerance_is_a_share_of_the_rows_of_a_file(folder, set_line, tolerance, is_enough):
    set_line("ratings.dat", 2, "1::2::0::978302109")
    set_line("ratings.dat", 3, "2::1::6::978298413")
    if is_enough:
        assert read_movielens(folder, tolerance).ratings["movie_id"].tolist() == [73, 260, 73]
        return
    with pytest.raises(DataError, match=r"should be bad; 2 of 5 are \(rating out of range: 2\)"):
        read_movielens(folder, tolerance)


@pytest.mark.parametrize("name", ["users.dat", "movies.dat", "ratings.dat"])
def test_a_file_with_only_bad_rows_is_never_tolerated(folder, name):
    (folder / name).write_text("one\ntwo\n")
    with pytest.raises(DataError, match=rf"^{name}: should have at least one good row; there is none\.\n{name}:1: "):
        read_movielens(folder, tolerance=1.0)


def test_the_first_good_row_of_a_duplicated_pair_is_kept(folder, set_line):
    set_line("ratings.dat", 1, "1::73::9::978300760")
    set_line("ratings.dat", 2, "1::73::3::978302109")
    set_line("ratings.dat", 3, "1::73::1::978298413")
    set_line("ratings.dat", 4, "01::73::4::978298413")
    data = read_movielens(folder, tolerance=1.0)
    assert data.ratings["rating"].tolist() == [3, 2]
    assert [(row.line, row.kind, row.value) for row in data.bad_rows] == [
        (1, "rating out of range", "9"),
        (3, "duplicate pair", "1::73"),
        (4, "duplicate pair", "01::73"),
    ]
    assert data.bad_rows[1].expected == "a user should rate a movie once, and line 2 has this pair"


def test_a_users_file_in_utf8_is_reported_as_utf8(folder, set_line):
    set_line("users.dat", 2, "2::M::56::16::700é2".encode())
    with pytest.raises(DataError, match=r"\nusers\.dat:2: .*is UTF-8"):
        read_movielens(folder)


def test_a_long_line_is_quoted_in_part(folder, set_line):
    set_line("ratings.dat", 2, "x" * 10_000)
    with pytest.raises(DataError) as caught:
        read_movielens(folder)
    assert len(str(caught.value)) < 300
    assert caught.value.value == "x" * 10_000


def test_ids_up_to_the_largest_int64_are_read(folder, set_line):
    largest = 2**63 - 1
    set_line("users.dat", 2, f"{largest}::M::56::16::70072")
    set_line("movies.dat", 1, f"{largest}::Toy Story (1995)::Comedy")
    set_line("credits.csv", 2, f"{largest},Director 1,Star 1")
    set_line("ratings.dat", 3, f"{largest}::{largest}::1::978298413")
    set_line("ratings.dat", 4, f"{largest}::260::4::978298413")
    ratings = read_movielens(folder).ratings
    assert ratings["user_id"].tolist() == [1, 1, largest, largest, 5]
    assert ratings["movie_id"].tolist() == [73, 2, largest, 260, 73]


def test_parsing_by_columns_and_by_rows_gives_the_same_ratings(tmp_path):
    rng = np.random.default_rng(3)
    pairs = rng.permutation(40 * 30)[:500]
    rows = np.column_stack(
        [pairs // 30 + 1, pairs % 30 + 990, rng.integers(1, 6, 500), 10 ** rng.integers(0, 11, 500) + 1]
    )
    texts = ["::".join(map(str, row)) for row in rows.tolist()]
    # One row, with a user_id padded to 19 digits, is left to parse_row; this should not change the other rows.
    texts[17] = "::".join([texts[17].split("::")[0].zfill(19), *texts[17].split("::")[1:]])
    lines = Lines(tmp_path / "ratings.dat", "\n".join(texts).encode())
    columns, is_ordinary = parse_columns(lines)
    assert np.flatnonzero(~is_ordinary).tolist() == [17]
    np.testing.assert_array_equal(columns.T[is_ordinary], rows[is_ordinary])
    np.testing.assert_array_equal([parse_row(lines[row]) for row in range(lines.count)], rows)


def test_the_error_survives_pickling(folder):
    report = DataError(folder / "ratings.dat", 17, "rating should be 1 to 5", "7", "Two rows.")
    assert str(pickle.loads(pickle.dumps(report))) == str(report) == "Two rows."
    error = DataError(folder / "ratings.dat", 17, "rating should be 1 to 5", "7")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "ratings.dat:17: rating should be 1 to 5; received '7'."
    assert (copy.file, copy.line, copy.value) == (folder / "ratings.dat", 17, "7")


@pytest.mark.ml1m
def test_movielens_1m_is_read_in_full(ml1m_dir):
    data = read_movielens(ml1m_dir)
    assert (len(data.ratings), len(data.users), len(data.movies)) == (1_000_209, 6_040, 3_883)
    assert data.ratings["movie_id"].nunique() == 3_706
    assert data.ratings["rating"].value_counts().sort_index().tolist() == [56174, 107557, 261197, 348971, 226310]
