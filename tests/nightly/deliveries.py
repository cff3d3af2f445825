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
_MOVIES, _RATINGS_OF_USER, _ACTIVE_NIGHTS = 150, 50, 12


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
          ratings_per_night: about how many ratings.
          seed: seed of all draws.
        """
        rng = np.random.default_rng(seed)
        # People come, rate for some nights, and go; many came before the first night.
        ratings = ratings_per_night * (nights + _ACTIVE_NIGHTS)
        generate_sample(folder, users=ratings // _RATINGS_OF_USER, movies=_MOVIES, ratings=ratings, seed=seed)
        raw = read_raw(folder)
        self.users, self.movies = raw["users"], raw["movies"][["movie_id", "title", "genres"]]
        self.credits = pd.read_csv(folder / "credits.csv", keep_default_na=False)
        ids = self.movies["movie_id"].to_numpy()
        introduced = np.where(rng.random(len(ids)) < 0.85, 1, rng.integers(1, nights + 1, size=len(ids)))
        self.introduced = dict(zip(ids.tolist(), introduced.tolist(), strict=True))
        leaving = rng.choice(ids, size=len(ids) // 12, replace=False)
        self.removed = {int(movie): int(rng.integers(5, nights + 5)) for movie in leaving}
        self.ratings = self._again(rng, self._in_time(rng, raw["ratings"], nights), nights)

    def _in_time(self, rng: np.random.Generator, table: pd.DataFrame, nights: int) -> pd.DataFrame:
        """Gives each rating its night and time; each person's ratings stay in their order."""
        table = table.sort_values(["user_id", "timestamp"], kind="stable")
        of_user = table.groupby("user_id")["movie_id"]
        share = of_user.cumcount() / of_user.transform("size")
        starts = rng.integers(1 - _ACTIVE_NIGHTS, nights + 1, size=table["user_id"].max() + 1)
        when = starts[table["user_id"]] + share.to_numpy() * _ACTIVE_NIGHTS
        night = np.floor(when).astype(int)
        table = table.assign(night=night, timestamp=(_FIRST_SECOND + when * _DAY).astype(int))
        first, last = self._nights_of(table["movie_id"])
        return table[(first <= night) & (night < last) & (night <= nights)]

    def _nights_of(self, movies: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """The first night of movies, and that from which on they are there no more."""
        return movies.map(self.introduced).to_numpy(), movies.map(self.removed).fillna(10**6).to_numpy()

    def _again(self, rng: np.random.Generator, ratings: pd.DataFrame, nights: int) -> pd.DataFrame:
        """From night 4 on, some of earlier ratings are given anew, with other stars."""
        again = ratings.sample(frac=0.02, random_state=int(rng.integers(2**31)))
        later = np.maximum(4 - again["night"], 1) + rng.integers(3, size=len(again))
        again = again.assign(
            night=again["night"] + later,
            timestamp=again["timestamp"] + later * _DAY,
            rating=rng.integers(1, 6, size=len(again)),
        )
        _, last = self._nights_of(again["movie_id"])
        again = again[(again["night"] < last) & (again["night"] <= nights)]
        return pd.concat([ratings, again]).sort_values("timestamp", kind="stable").reset_index(drop=True)

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


def _write(path: Path, table: pd.DataFrame) -> None:
    lines = table.astype(str).agg("::".join, axis=1)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="latin-1")
