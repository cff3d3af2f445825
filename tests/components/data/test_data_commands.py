"""The commands under `movielens data` print tables or one error message, and exit with 0, 1 or 2."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pipeline.commands.data import app


def _run(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _cells(text):
    """The two cells of each row of a printed table, as a mapping from the first to the second."""
    return {row[1].strip(): row[2].strip() for line in text.splitlines() if len(row := line.split("│")) == 4}


def test_check_prints_counts(folder):
    result = _run("check", folder)
    assert result.exit_code == 0
    cells = _cells(result.stdout)
    assert (cells["Ratings"], cells["Users"], cells["Movies"], cells["Movies with a rating"]) == ("5", "3", "4", "4")
    assert cells["Rated pairs"] == "41.67%"
    assert cells["First rating (UTC)"] == "2000-12-31 05:37"
    assert cells["Last rating (UTC)"] == "2000-12-31 22:35"
    assert [cells[f"Ratings of {value}"].split()[0] for value in range(1, 6)] == ["1"] * 5
    assert cells["Movies with a director"] == "2 (40.0% of ratings)"
    assert cells["Movies with a star"] == "2 (40.0% of ratings)"


def test_a_folder_may_have_a_name_that_reads_as_a_pattern(folder, tmp_path):
    moved = folder.rename(tmp_path / "d[1]{2}*?")
    assert _cells(_run("check", moved).stdout)["Ratings"] == "5"
    result = _run("sample", "--output", tmp_path / "s[1]", "--users", 5, "--movies", 20, "--ratings", 40)
    assert (result.exit_code, _cells(result.stdout)["Ratings"]) == (0, "40")


def test_check_reports_a_missing_credits_file(folder):
    (folder / "credits.csv").unlink()
    assert _cells(_run("check", folder).stdout)["Credits"] == "no credits.csv"


def test_check_names_the_bad_line_in_one_message(folder, set_line):
    set_line("ratings.dat", 4, "2::260::7::978298413")
    result = _run("check", folder)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "Error: ratings.dat:4: rating should be an integer from 1 to 5; received '7'.\n"


def test_check_counts_bad_rows_by_kind(folder, set_line):
    set_line("ratings.dat", 4, "2::260::7::978298413")
    set_line("ratings.dat", 5, "5::73")
    result = _run("check", folder)
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: ratings.dat: no row should be bad; 2 of 5 are (rating out of range: 1, wrong number of fields: 1).\n"
        "ratings.dat:4: rating should be an integer from 1 to 5; received '7'.\n"
        "ratings.dat:5: a row should have 4 fields, user_id::movie_id::rating::timestamp, but has 2; "
        "received '5::73'.\n"
    )


def test_check_refuses_a_missing_folder(tmp_path):
    result = _run("check", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert f"there is none at {tmp_path / 'nowhere'}" in result.stderr


def test_sample_replaces_a_different_data_set_only_with_force(tmp_path):
    sizes = ("--users", 10, "--movies", 20, "--ratings", 200, "--seed", 5)
    result = _run("sample", "--output", tmp_path / "a", *sizes)
    assert result.exit_code == 0
    assert _cells(result.stdout)["Ratings"] == "200"
    assert _run("sample", "--output", tmp_path / "a", *sizes).exit_code == 0
    refused = _run("sample", "--output", tmp_path / "a", *sizes[:-1], 6)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "should be new or empty" in refused.stderr
    assert _run("sample", "--output", tmp_path / "a", *sizes[:-1], 6, "--force").exit_code == 0


def test_sample_refuses_an_impossible_size(tmp_path):
    result = _run("sample", "--output", tmp_path / "a", "--users", 10, "--movies", 20, "--ratings", 201)
    assert result.exit_code == 2
    assert result.stderr == "Error: ratings should be from 10 (one a user) to 200 (users x movies); received 201.\n"


def test_sample_refuses_an_output_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    result = _run("sample", "--output", tmp_path / "file" / "data")
    assert result.exit_code == 2
    assert f"{tmp_path / 'file'} is a file." in result.stderr


def test_sample_reports_a_folder_that_cannot_be_written():
    result = _run("sample", "--output", "/proc/nothing/data")
    assert result.exit_code == 1
    assert result.stderr == "Error: /proc/nothing/data: cannot be written; No such file or directory.\n"


def test_fetch_offline_prints_the_terms_and_fails(tmp_path):
    # Nothing listens on port 1.
    result = _run("fetch", "--output", tmp_path / "ml-1m", "--url", "http://127.0.0.1:1/ml-1m.zip")
    assert result.exit_code == 1
    assert "may not be redistributed" in result.stdout
    assert "Harper" in result.stdout
    assert "no connection" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["sample", "fetch", "check"])
def test_no_tensorflow_is_imported(folder, tmp_path, command):
    new = str(tmp_path / "new")
    args, exit_code = {
        "sample": (["sample", "--output", new], None),
        "fetch": (["fetch", "--output", new, "--url", "http://127.0.0.1:1/ml-1m.zip"], 1),
        "check": (["check", str(folder)], None),
    }[command]
    code = (
        "import sys\n"
        "from pipeline.commands.data import app\n"
        f"assert app({args!r}, standalone_mode=False) == {exit_code}\n"
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'tf_keras', 'tensorflow_transform'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
