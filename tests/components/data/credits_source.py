"""A small links.csv and small tables in IMDb's format; all names and titles are invented."""

import gzip
from pathlib import Path

import pytest

from components.data.credits import LinkCounts, make_credits
from components.data.layout import DataError

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
SUMMARY = LinkCounts(movies=6, with_director=3, with_star=3, without_id=1, unknown=1, other_types={"tvMovie": 1})
TINY = 200  # Block size in bytes: so few lines that reading crosses the borders of blocks.


class Source:
    """A folder with the input files of `make_credits`; its methods change the files and run `make_credits` on them."""

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

    def make(self, **options) -> LinkCounts:
        return make_credits(self.links, self.imdb, self.output, **options)

    def assert_fails(self, message: str) -> None:
        with pytest.raises(DataError, match=message):
            self.make(block_bytes=TINY)
        assert not self.output.exists()
