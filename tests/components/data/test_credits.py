"""`make_credits` writes each movie's first director and star with a name, and names the line of a bad input file."""

import gzip
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.data.raw_files import read_movielens
from tests.components.data.credits_source import EXPECTED, LINKS, SUMMARY, TABLES, TINY


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("block_bytes", [TINY, 1 << 20])
def test_names_the_first_director_and_star_that_have_a_name(source, compressed, block_bytes):
    if compressed:
        source.compress()
    assert source.make(block_bytes=block_bytes) == SUMMARY
    assert source.output.read_text() == EXPECTED
    assert [entry.name for entry in source.output.parent.iterdir()] == ["credits.csv"]


def test_links_with_a_byte_order_mark_and_windows_line_ends_are_read(source):
    source.write_links(["\ufeff" + LINKS[0], *LINKS[1:]], end="\r\n")
    assert source.make() == SUMMARY


def test_only_the_requested_movies_are_written(source):
    assert source.make(movie_ids=[2, 300, 4000]).movies == 2
    assert [line.split(",")[0] for line in source.output.read_text().splitlines()] == ["movie_id", "2", "300"]


def test_the_pipeline_can_read_the_written_file(source, folder):
    source.output = folder / "credits.csv"
    source.make(movie_ids=[1, 2, 73, 260], force=True)
    read = read_movielens(folder).credits
    assert read is not None
    assert read["director"].tolist() == ["Ada Förster", 'B. "Buzz" Lund, Jr.', "Zoë Ünal", None]
    assert read["star"].tolist() == ["Ida Marsh", "Kim Ray", "Roy Old", None]


def test_reordered_and_additional_columns_are_accepted(source):
    lines = ["new\tdirectors\ttconst\twriters", "x\tnm0000012\ttt0000101\t\\N"]
    source.write("title.crew.tsv", lines)
    source.make()
    assert '1,"B. ""Buzz"" Lund, Jr.",Ida Marsh' in source.output.read_text()


def test_progress_is_reported_for_one_table_after_another_up_to_its_size(source):
    source.compress()
    steps: dict[str, list[tuple[int, int]]] = {}
    source.make(
        block_bytes=TINY, progress=lambda path, done, size: steps.setdefault(path.name, []).append((done, size))
    )
    assert list(steps) == [f"{name}.gz" for name in TABLES]
    for name, reports in steps.items():
        size = (source.imdb / name).stat().st_size
        assert reports == sorted(reports)
        assert reports[-1] == (size, size)


def test_memory_does_not_grow_with_the_size_of_a_table(source):
    """Reads a table of 150 MB (gzipped to a small file) in a new process; its peak memory grows by less than 100 MB."""
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
    source.assert_fails(rf"^{name}: should be in .*imdb, as {name} or {name}\.gz from https://\S+; no such file\.$")


def test_missing_links_are_named(source):
    source.links.unlink()
    source.assert_fails(r"^links\.csv: should be in .*; no such file")


@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_header_is_named(source, name):
    first, *rest = TABLES[name]
    source.write(name, [first.replace("const\t", "\t", 1), *rest])
    source.assert_fails(rf"^{name}:1: the header should name the columns [tn]const, \w+.*; received ")


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
    source.assert_fails(rf"^{name}{suffix}:{line}: {message}")


def test_text_that_is_not_utf8_is_named(source):
    path = source.imdb / "name.basics.tsv"
    path.write_bytes(path.read_bytes().replace("Förster".encode(), "Förster".encode("latin-1")))
    source.assert_fails(r"^name\.basics\.tsv:3: text should be UTF-8; received 'Ada Förster'")


def test_a_truncated_gzip_table_is_named(source):
    source.compress()
    path = source.imdb / "name.basics.tsv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    source.assert_fails(r"^name\.basics\.tsv\.gz: should be a whole gzip file")


@pytest.mark.parametrize("content", [b"", b"tconst\tdirectors\twriters\n"])
def test_an_empty_table_is_named(source, content):
    (source.imdb / "title.crew.tsv").write_bytes(content)
    source.assert_fails(r"^title\.crew\.tsv:? ?(1: the header should name|should have at least one row)")


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
    source.assert_fails(rf"^links\.csv:{line}: {message}")


def test_an_existing_output_is_replaced_only_with_force(source):
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


def test_a_killed_run_leaves_no_new_file(source):
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
