"""`movielens data credits` writes credits.csv and prints a summary, or fails with one message."""

import shutil
import subprocess
import sys

from typer.testing import CliRunner

from pipeline.commands.data import app
from tests.components.data.credits_source import EXPECTED


def run(source, *options):
    arguments = ["credits", "--links", source.links, "--imdb", source.imdb, "--output", source.output, *options]
    result = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def cells(text):
    return {row[1].strip(): row[2].strip() for line in text.splitlines() if len(row := line.split("│")) == 4}


def test_command_prints_a_summary(source):
    result = run(source)
    assert result.exit_code == 0, result.stderr
    assert cells(result.stdout) == {
        "Movies": "6",
        "With a director": "3",
        "With a star": "3",
        "Unmatched": "2",
        "without an IMDb id": "1",
        "that IMDb does not know": "1",
        "Not a movie but tvMovie": "1",
    }
    assert source.output.read_text() == EXPECTED


def test_command_writes_the_movies_of_the_movies_file_beside_the_output(source, folder):
    source.output = folder / "credits.csv"
    assert run(source).exit_code == 2
    assert run(source, "--force").exit_code == 0
    assert [row.split(",")[0] for row in source.output.read_text().splitlines()[1:]] == ["1", "2", "73", "260"]
    source.output.unlink()
    shutil.copy(folder / "movies.dat", folder / "others.dat")
    lines = (folder / "movies.dat").read_bytes().splitlines(keepends=True)
    (folder / "others.dat").write_bytes(lines[1])
    assert run(source, "--movies", folder / "others.dat").exit_code == 0
    assert source.output.read_text().splitlines()[1:] == ['2,"B. ""Buzz"" Lund, Jr.",Kim Ray']


def test_command_fails_with_one_message(source):
    (source.imdb / "title.crew.tsv").unlink()
    result = run(source)
    assert result.exit_code == 2
    assert "Error: title.crew.tsv: should be in" in result.stderr
    assert result.stdout == ""


def test_command_imports_no_tensorflow(source):
    code = (
        "import sys\n"
        "from pipeline.commands.data import app\n"
        f"app(['credits', '--links', {str(source.links)!r}, '--imdb', {str(source.imdb)!r}, '--output', "
        f"{str(source.output)!r}], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert source.output.exists()
