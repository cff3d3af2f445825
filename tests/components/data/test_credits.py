"""credits.csv made of links.csv and small tables in IMDb's format; names and titles are made up."""

import gzip
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.data.credits import CreditsSummary, make_credits
from components.data.layout import DataError
from components.data.raw_files import read_movielens
from pipeline.commands.data import app

TABLES = {
    "title.basics.tsv": [
        "tconst\ttitleType\tprimaryTitle\toriginalTitle\tisAdult\tstartYear\tendYear\truntimeMinutes\tgenres",
        "tt0000001\tshort\tNobody's\tNobody's\t0\t1894\t\\N\t1\tShort",
        "tt0000101\tmovie\tPaper Boats\tPaper Boats\t0\t1995\t\\N\t81\tComedy",
        'tt0000102\tmovie\tThe "Long" Game\tThe "Long" Game\t0\t1995\t\\N\t104\tAdventure,Family',
        "tt0000103\ttvMovie\tLes Égarés\tLes Égarés\t0\t1995\t\\N\t\\N\tDrama",
        "tt10000104\tmovie\tA Star\tA Star\t0\t1977\t\\N\t121\tAction",
    ],
    "title.crew.tsv": [
        "tconst\tdirectors\twriters",
        "tt0000001\tnm0000009\t\\N",
        "tt0000101\tnm0000011\tnm0000012,nm0000013",
        "tt0000102\tnm0000099,nm0000012\t\\N",
        "tt0000103\t\\N\tnm0000013",
        "tt10000104\t\\N\t\\N",
    ],
    "title.principals.tsv": [
        "tconst\tordering\tnconst\tcategory\tjob\tcharacters",
        "tt0000001\t1\tnm0000009\tself\t\\N\t\\N",
        'tt0000101\t10\tnm0000022\tactor\t\\N\t["Second"]',
        'tt0000101\t2\tnm0000021\tactress\t\\N\t["First, \\"the Best\\""]',
        "tt0000101\t1\tnm0000011\tdirector\t\\N\t\\N",
        "tt0000102\t1\tnm0000099\tactor\t\\N\t\\N",
        'tt0000102\t2\tnm0000023\tself\t\\N\t["Self"]',
        "tt0000103\t1\tnm0000024\tarchive_footage\t\\N\t\\N",
        "tt0000103\t2\tnm0000014\tdirector\t\\N\t\\N",
        "tt10000104\t1\tnm0000015\tcinematographer\t\\N\t\\N",
    ],
    "name.basics.tsv": [
        "nconst\tprimaryName\tbirthYear\tdeathYear\tprimaryProfession\tknownForTitles",
        "nm0000009\tNobody Asked\t\\N\t\\N\tactor\ttt0000001",
        "nm0000011\tAda Förster\t1950\t\\N\tdirector\ttt0000101",
        'nm0000012\tB. "Buzz" Lund, Jr.\t1951\t\\N\tdirector\ttt0000102',
        "nm0000014\tZoë\u00a0Ünal\t1952\t\\N\tdirector\ttt0000103",
        "nm0000021\tIda Marsh\t1960\t\\N\tactress\ttt0000101",
        "nm0000022\tOle Quist\t1961\t\\N\tactor\ttt0000101",
        "nm0000023\tKim Ray\t1962\t\\N\t\\N\t\\N",
        "nm0000024\tRoy Old\t1900\t1970\tarchive_footage\ttt0000103",
        "nm0000099\t\\N\t\\N\t\\N\t\\N\t\\N",
    ],
}
LINKS = [
    "movieId,imdbId,tmdbId",
    "1,0000101,862",
    "2,0000102,",
    "73,0000103,12665",
    "260,10000104,11",
    "300,0000999,7",
    "301,,",
]
EXPECTED = """movie_id,director,star
1,Ada Förster,Ida Marsh
2,"B. ""Buzz"" Lund, Jr.",Kim Ray
73,Zoë Ünal,Roy Old
260,,
300,,
301,,
"""
SUMMARY = CreditsSummary(movies=6, with_director=3, with_star=3, without_id=1, unknown=1, other_types={"tvMovie": 1})
TINY = 200  # Bytes, a line or three.


class Source:
    """A folder with links.csv and tables."""

    def __init__(self, root: Path):
        self.links = root / "links.csv"
        self.imdb = root / "imdb"
        self.output = root / "out" / "credits.csv"
        self.imdb.mkdir(parents=True)
        self.write_links(LINKS)
        for name, lines in TABLES.items():
            self.write(name, lines)

    def write(self, name: str, lines: list[str], compressed: bool = False) -> None:
        content = "".join(line + "\n" for line in lines).encode()
        path = self.imdb / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(content) if compressed else content)

    def write_links(self, lines: list[str], end: str = "\n") -> None:
        self.links.write_bytes("".join(line + end for line in lines).encode())

    def compress(self) -> None:
        for name, lines in TABLES.items():
            (self.imdb / name).unlink()
            self.write(name, lines, compressed=True)

    def make(self, **options) -> CreditsSummary:
        return make_credits(self.links, self.imdb, self.output, **options)

    def fails(self, message: str) -> None:
        with pytest.raises(DataError, match=message):
            self.make(block_bytes=TINY)
        assert not self.output.exists()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("block_bytes", [TINY, 1 << 20])
def test_names_the_first_director_and_star_that_have_a_name(source, compressed, block_bytes):
    if compressed:
        source.compress()
    assert source.make(block_bytes=block_bytes) == SUMMARY
    assert source.output.read_text() == EXPECTED
    assert [entry.name for entry in source.output.parent.iterdir()] == ["credits.csv"]


def test_links_as_windows_writes_them(source):
    source.write_links(["\ufeff" + LINKS[0], *LINKS[1:]], end="\r\n")
    assert source.make() == SUMMARY


def test_only_the_movies_that_are_asked_for(source):
    assert source.make(movie_ids=[2, 300, 4000]).movies == 2
    assert [line.split(",")[0] for line in source.output.read_text().splitlines()] == ["movie_id", "2", "300"]


def test_the_pipelines_reader_takes_what_was_written(source, folder):
    source.output = folder / "credits.csv"
    source.make(movie_ids=[1, 2, 73, 260], force=True)
    read = read_movielens(folder).credits
    assert read is not None
    assert read["director"].tolist() == ["Ada Förster", 'B. "Buzz" Lund, Jr.', "Zoë Ünal", None]
    assert read["star"].tolist() == ["Ida Marsh", "Kim Ray", "Roy Old", None]


def test_columns_in_another_order_and_new_ones_are_no_matter(source):
    lines = ["new\tdirectors\ttconst\twriters", "x\tnm0000012\ttt0000101\t\\N"]
    source.write("title.crew.tsv", lines)
    source.make()
    assert '1,"B. ""Buzz"" Lund, Jr.",Ida Marsh' in source.output.read_text()


def test_progress_goes_from_file_to_file_up_to_their_sizes(source):
    source.compress()
    steps: dict[str, list[tuple[int, int]]] = {}
    source.make(
        block_bytes=TINY, progress=lambda path, done, size: steps.setdefault(path.name, []).append((done, size))
    )
    assert list(steps) == [f"{name}.gz" for name in TABLES]
    for name, told in steps.items():
        size = (source.imdb / name).stat().st_size
        assert told == sorted(told)
        assert told[-1] == (size, size)


def test_memory_stays_small_whatever_the_size_of_a_table(source):
    """A table of 150 MB, gzipped to little, in a process that may not have much more than Python and Arrow need."""
    row = "tt9{:06d}\t1\tnm0000022\tactor\t\\N\t" + "x" * 700 + "\n"
    with gzip.open(source.imdb / "title.principals.tsv.gz", "wt", compresslevel=1) as file:
        file.write(TABLES["title.principals.tsv"][0] + "\n")
        for number in range(200_000):
            file.write(row.format(number))
        file.writelines(line + "\n" for line in TABLES["title.principals.tsv"][1:])
    (source.imdb / "title.principals.tsv").unlink()
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from components.data.credits import make_credits\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"make_credits(Path({str(source.links)!r}), Path({str(source.imdb)!r}), Path({str(source.output)!r}))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert source.output.read_text() == EXPECTED
    assert int(done.stdout) < 100_000, "kilobytes"


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_table_is_named(source, name):
    (source.imdb / name).unlink()
    source.fails(rf"^{name}: should be in .*imdb, as {name} or {name}\.gz from https://\S+; no such file\.$")


def test_missing_links_are_named(source):
    source.links.unlink()
    source.fails(r"^links\.csv: should be in .*; no such file")


@pytest.mark.parametrize("name", TABLES)
def test_another_header_is_named(source, name):
    first, *rest = TABLES[name]
    source.write(name, [first.replace("const\t", "\t", 1), *rest])
    source.fails(rf"^{name}:1: the header should name the columns [tn]const, \w+.*; received ")


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(
    ("name", "line", "text", "message"),
    [
        ("title.crew.tsv", 5, "tt0000103\t\\N", r"a row should have 3 fields, separated by tabs, but has 2; received "),
        ("title.crew.tsv", 3, "", r"tconst should be tt or nm and digits; received ''"),
        ("title.principals.tsv", 9, "0000103\t1\t\\N\tself\t\\N\t\\N", r"tconst should be tt .*; received '0000103'"),
        (
            "title.principals.tsv",
            4,
            "tt0000101\tx\tnm1\tself\t\\N\t\\N",
            r"ordering should be a whole .*; received 'x'",
        ),
        ("title.principals.tsv", 6, "tt0000102\t1\t\\N\tself\t\\N\t\\N", r"nconst should be nm and digits"),
        (
            "name.basics.tsv",
            10,
            "\\N\tNo One\t\\N\t\\N\t\\N\t\\N",
            r"nconst should be tt or nm and digits; there is none\.$",
        ),
    ],
)
def test_a_bad_line_is_named(source, name, line, text, message, compressed):
    lines = list(TABLES[name])
    lines[line - 1] = text
    (source.imdb / name).unlink()
    source.write(name, lines, compressed)
    suffix = r"\.gz" if compressed else ""
    source.fails(rf"^{name}{suffix}:{line}: {message}")


def test_text_that_is_not_utf8_is_named(source):
    path = source.imdb / "name.basics.tsv"
    path.write_bytes(path.read_bytes().replace("Förster".encode(), "Förster".encode("latin-1")))
    source.fails(r"^name\.basics\.tsv:3: text should be UTF-8; received 'Ada Förster'")


def test_a_table_that_breaks_off_is_named(source):
    source.compress()
    path = source.imdb / "name.basics.tsv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    source.fails(r"^name\.basics\.tsv\.gz: should be a whole gzip file")


@pytest.mark.parametrize("content", [b"", b"tconst\tdirectors\twriters\n"])
def test_an_empty_table_is_named(source, content):
    (source.imdb / "title.crew.tsv").write_bytes(content)
    source.fails(r"^title\.crew\.tsv:? ?(1: the header should name|should have at least one row)")


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "movieId,imdbId", "the header should be movieId,imdbId,tmdbId; received 'movieId,imdbId'"),
        (3, "2,0000102", "a row should have 3 fields"),
        (3, "two,0000102,", "movieId should be a positive integer; received 'two'"),
        (3, "2,tt0000102,", "imdbId should be digits, without tt; received 'tt0000102'"),
        (3, "1,0000102,", "movieId should be unique"),
    ],
)
def test_a_bad_link_is_named(source, line, text, message):
    lines = list(LINKS)
    lines[line - 1] = text
    source.write_links(lines)
    source.fails(rf"^links\.csv:{line}: {message}")


def test_a_file_that_is_there_is_replaced_only_if_told_so(source):
    source.output.parent.mkdir()
    source.output.write_text("mine")
    with pytest.raises(FileExistsError, match=r"should be a new file; there is one, which --force replaces"):
        source.make()
    assert source.output.read_text() == "mine"
    source.make(force=True)
    assert source.output.read_text() == EXPECTED


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(source, monkeypatch):
    source.output.parent.mkdir()
    source.output.write_text("mine")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        source.make(force=True)
    assert source.output.read_text() == "mine"
    assert [entry.name for entry in source.output.parent.iterdir()] == ["credits.csv"]


def test_killed_half_way_it_leaves_nothing(source):
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "from components.data.credits import make_credits\n"
        "def stop(path, done, size):\n"
        "    if path.name.startswith('name'):\n"
        "        print('reading', flush=True)\n"
        "        time.sleep(60)\n"
        f"make_credits(Path({str(source.links)!r}), Path({str(source.imdb)!r}), Path({str(source.output)!r}),"
        " progress=stop)\n"
    )
    before = {path.name for path in source.links.parent.rglob("*")}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in source.links.parent.rglob("*")} == before


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


def test_command_writes_the_movies_of_the_file_beside_the_output(source, folder):
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


def test_command_fails_in_one_message(source):
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
