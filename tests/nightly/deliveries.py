"""Generated data that arrive night by night, in spans: new people and movies, movies that leave, corrections.

Everything is decided when the object is made, so that a night can be delivered late, again, or broken.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from components.data.sample import generate_sample
from tests.components.ingestion.examples_oracle import read_raw

_DAY = 86_400
_FIRST_SECOND = 978_300_000


class Deliveries:
    """The data of some nights.

    Attributes:
      ratings: columns night, user_id, movie_id, rating, timestamp, in the order in which they were given.
      users, movies, credits: as in the files.
      introduced: the night from which on each movie is in the catalogue, by movie_id.
      removed: the night from which on a movie is in the catalogue no more, likewise.
    """

    def __init__(self, folder: Path, nights: int, ratings_per_night: int, seed: int):
        """Draws the data.

        Args:
          folder: for temporary files.
          nights: how many there are.
          ratings_per_night: number of ratings, beside those that are given anew.
          seed: seed of all draws.
        """
        rng = np.random.default_rng(seed)
        people, titles = 8 * nights + 260, 3 * nights + 120
        # More than are needed: a pair is rated on a night only when the person and the movie are both there.
        generate_sample(folder, users=people, movies=titles, ratings=int(1.3 * nights * ratings_per_night), seed=seed)
        raw = read_raw(folder)
        self.users, self.movies = raw["users"], raw["movies"][["movie_id", "title", "genres"]]
        self.credits = pd.read_csv(folder / "credits.csv", keep_default_na=False)
        # Most are there from the first night on; the others come one after the other. No movie leaves before night 5.
        first_of_user = _nights_of(rng, self.users["user_id"], nights, there_at_first=0.4)
        self.introduced = _nights_of(rng, self.movies["movie_id"], nights, there_at_first=0.85)
        leaving = rng.choice(self.movies["movie_id"], size=max(1, titles // 12), replace=False)
        self.removed = {movie: int(rng.integers(5, nights + 5)) for movie in leaving}
        table = raw["ratings"]
        first_of_both = (table["user_id"].map(first_of_user), table["movie_id"].map(self.introduced))
        first = np.maximum(*(numbers.to_numpy() for numbers in first_of_both))
        last = np.minimum(table["movie_id"].map(self.removed).fillna(nights + 1).to_numpy(), nights + 1)
        night = np.zeros(len(table), int)
        for number in range(1, nights + 1):
            waiting = np.flatnonzero((night == 0) & (first <= number) & (number < last))
            night[rng.permutation(waiting)[:ratings_per_night]] = number
        self.ratings = self._timed(rng, table.assign(night=night)[night > 0])
        self._again(rng, nights)

    @staticmethod
    def _timed(rng: np.random.Generator, table: pd.DataFrame) -> pd.DataFrame:
        seconds = _FIRST_SECOND + table["night"] * _DAY + rng.integers(_DAY, size=len(table))
        return table.assign(timestamp=seconds).sort_values("timestamp", kind="stable").reset_index(drop=True)

    def _again(self, rng: np.random.Generator, nights: int) -> None:
        """From night 4 on, one in fifty of earlier ratings is given anew, with other stars."""
        earlier = self.ratings.sample(frac=0.02, random_state=int(rng.integers(2**31)))
        night = np.maximum(earlier["night"] + 1, 4) + rng.integers(3, size=len(earlier))
        again = earlier.assign(night=night, rating=rng.integers(1, 6, size=len(earlier)))
        gone = again["movie_id"].map(self.removed).fillna(nights + 1)
        again = again[(again["night"] <= nights) & (again["night"] < gone)]
        table = pd.concat([self.ratings, self._timed(rng, again)])
        self.ratings = table.sort_values("timestamp", kind="stable").reset_index(drop=True)

    def write(self, night: int, folder: Path, *, shuffled: bool = False, corrected: bool = False) -> None:
        """Writes the files of a night.

        Args:
          night: its number, from 1.
          folder: where they go; created if missing.
          shuffled: whether movies and stars are dealt out anew among the night's rows, as if a join had gone wrong.
          corrected: whether one in ten of the night's ratings has other stars than it had at first.
        """
        own = self.ratings[self.ratings["night"] == night]
        rng = np.random.default_rng(night)
        if shuffled:
            order = rng.permutation(len(own))
            own = own.assign(movie_id=own["movie_id"].to_numpy()[order], rating=rng.permutation(own["rating"]))
            own = own.drop_duplicates(["user_id", "movie_id"])
        if corrected:
            changed = rng.random(len(own)) < 0.1
            own = own.assign(rating=np.where(changed, 6 - own["rating"], own["rating"]))
        there = [movie for movie, first in self.introduced.items() if first <= night < self.removed.get(movie, 10**9)]
        movies = self.movies[self.movies["movie_id"].isin(there)]
        # From night 6 on the titles of every seventh movie are corrected.
        titles = [
            title.replace(" (", ", Restored (", 1) if night >= 6 and number % 7 == 0 else title
            for number, title in zip(movies["movie_id"], movies["title"], strict=True)
        ]
        folder.mkdir(parents=True)
        _write(folder / "ratings.dat", own[["user_id", "movie_id", "rating", "timestamp"]])
        _write(folder / "users.dat", self.users[self.users["user_id"].isin(own["user_id"])])
        _write(folder / "movies.dat", movies.assign(title=titles))
        self.credits[self.credits["movie_id"].isin(there)].to_csv(folder / "credits.csv", index=False)


def _nights_of(rng: np.random.Generator, ids: pd.Series, nights: int, there_at_first: float) -> dict[int, int]:
    """The first night of each id."""
    drawn = np.where(rng.random(len(ids)) < there_at_first, 1, rng.integers(1, nights + 1, size=len(ids)))
    return dict(zip(ids.tolist(), drawn.tolist(), strict=True))


def _write(path: Path, table: pd.DataFrame) -> None:
    lines = table.astype(str).agg("::".join, axis=1)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="latin-1")
