"""Computes independently what ExampleGen should write: from the raw files, with pandas and a loop over the ratings."""

import bisect
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.ingestion.splits import SplitConfig, Strategy, assign_splits

RATING_SPLITS = ("train", "eval", "test")
SPLITS = (*RATING_SPLITS, "movies")
USER_FEATURES = ("gender", "age", "occupation", "zip_code")
MOVIE_FEATURES = ("title", "release_year", "genres", "director", "star")
# By name: of which of a rating's columns a history is made.
HISTORY_FEATURES = {"history_movie_ids": "movie_id", "history_ratings": "rating", "history_timestamps": "timestamp"}

# The splits whose ratings of the same user a row may know, by strategy and split of the row; by default only train.
_KNOWN_SPLITS = {
    (Strategy.LEAVE_LAST_OUT, "test"): ["train", "eval"],
    (Strategy.TEMPORAL_ROLLING, "eval"): ["train", "eval", "test"],
    (Strategy.TEMPORAL_ROLLING, "test"): ["train", "eval", "test"],
}


def read_split(uri: str, split: str) -> pa.Table:
    """Reads the features of all rows of a split, as columns of lists; null where a row lacks the feature."""
    files = sorted(str(path) for path in Path(uri, f"Split-{split}").glob("*.gz"))
    assert files
    decoder = ExamplesToRecordBatchDecoder()
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(8192)
    batches = [decoder.DecodeBatch(batch) for batch in records.as_numpy_iterator()]
    if not batches:
        return pa.table({})
    return pa.concat_tables([pa.Table.from_batches([b]) for b in batches], promote_options="default").combine_chunks()


def read_raw(folder: Path) -> dict[str, pd.DataFrame]:
    """Reads the tables ratings, users and movies from the raw files; unknown directors and stars are empty or null."""
    columns = {
        "ratings": ["user_id", "movie_id", "rating", "timestamp"],
        "users": ["user_id", *USER_FEATURES],
        "movies": ["movie_id", "title", "genres"],
    }
    raw = {}
    for name, names in columns.items():
        text = (folder / f"{name}.dat").read_text(encoding="latin-1").replace("::", "\t")
        raw[name] = pd.read_csv(io.StringIO(text), sep="\t", names=names, dtype={"zip_code": str}, quoting=3)
    movies = raw["movies"]
    movies["release_year"] = movies["title"].str[-5:-1].astype(np.int64)
    if (folder / "credits.csv").exists():
        movies = movies.merge(pd.read_csv(folder / "credits.csv", keep_default_na=False), "left", "movie_id")
    else:
        movies = movies.assign(director=None, star=None)
    raw["movies"] = movies
    return raw


def assert_examples(
    tables: dict[str, pa.Table], folder: Path, history_length: int, strategy: Strategy = Strategy.RANDOM
) -> pd.DataFrame:
    """Checks every feature of every row against the raw files, except which split a rating is in.

    Args:
      tables: the table of each split, as read by `read_split`.
      folder: the folder with the raw files.
      history_length: the largest number of movies in a history.
      strategy: how ratings were divided into splits, which decides which of the user's ratings a row may know.

    Returns:
      The ratings in the file, with the column `split`.
    """
    raw = read_raw(folder)
    ratings = _with_splits(raw["ratings"], {split: tables[split] for split in RATING_SPLITS})
    for split in RATING_SPLITS:
        _assert_rows(tables[split], split, ratings, raw["users"], raw["movies"], history_length, strategy)
    _assert_movies(tables["movies"], raw["movies"])
    return ratings


def assert_window(
    tables: dict[str, pa.Table],
    folders: dict[int, Path],
    spans: int,
    history_length: int,
    config: SplitConfig,
    keep: int | None = None,
) -> pd.DataFrame:
    """Checks every feature of every row against the raw files of spans, and which rows are in which split.

    Args:
      tables: the table of each split, as read by `read_split`.
      folders: the folders of all spans by number.
      spans: number of spans in the window.
      history_length: the largest number of movies in a history.
      config: how each span was divided.
      keep: number of the newest spans that anything may be known of; None for all.

    Returns:
      The ratings of all spans that count, with the columns `split`, `span` and `part`.
    """
    oldest = min(folders) if keep is None else max(folders) - keep + 1
    raw = {number: read_raw(folder) for number, folder in sorted(folders.items()) if number >= oldest}
    newest, first = max(raw), max(raw) - spans + 1
    divided = []
    for number, of_span in raw.items():
        table = of_span["ratings"]
        user_id, movie_id, timestamp = (table[name].to_numpy() for name in ("user_id", "movie_id", "timestamp"))
        codes = assign_splits(user_id, movie_id, timestamp, config)
        divided.append(table.assign(split=np.array(RATING_SPLITS)[codes], span=number))
    ratings = pd.concat(divided, ignore_index=True)
    # Of a movie that somebody rated again, the later rating is the one that anybody knows of.
    ratings = ratings[~ratings[::-1].duplicated(["user_id", "movie_id"])[::-1]].reset_index(drop=True)
    users, movies = (
        pd.concat([of_span[name] for of_span in raw.values()]).groupby(key, sort=False).tail(1)
        for name, key in (("users", "user_id"), ("movies", "movie_id"))
    )

    def part(rating: pd.Series) -> str:
        if rating["span"] < first:
            return "past"
        if rating["split"] == "test" and rating["span"] < newest:
            return "past"
        return str(rating["split"])

    ratings["part"] = ratings.apply(part, axis=1)
    previous = max([number for number in raw if number < newest], default=newest)
    is_train = ratings["split"] == "train"
    chosen = {name: ratings["part"] == name for name in (*RATING_SPLITS, "past")}
    chosen |= {"newest": is_train & (ratings["span"] == newest), "previous": is_train & (ratings["span"] == previous)}
    for name, is_there in chosen.items():
        if not is_there.any():
            assert not tables[name].num_rows
            continue
        found = sorted(map(tuple, _keys(tables[name]).to_numpy().tolist()))
        assert found == sorted(map(tuple, ratings.loc[is_there, ["user_id", "movie_id"]].to_numpy().tolist())), name
        known_as = name if name in RATING_SPLITS else "train"
        length = None if name == "past" else history_length
        _assert_rows(tables[name], known_as, ratings, users, movies, length, config.strategy)
    _assert_movies(tables["movies"], movies[movies["movie_id"].isin(raw[newest]["movies"]["movie_id"])])
    return ratings


def _assert_rows(
    table: pa.Table,
    split: str,
    ratings: pd.DataFrame,
    users: pd.DataFrame,
    movies: pd.DataFrame,
    history_length: int | None,
    strategy: Strategy,
) -> None:
    """Checks the features of the rows of a split; without a length of histories, the rows have none."""
    histories, seen = _expected_lists(ratings, history_length or 0, strategy)
    joined = ratings.merge(users, "left", "user_id").merge(movies, "left", "movie_id")
    rows = _positions(ratings, table)
    expected = joined.iloc[rows]
    for name in ("rating", "timestamp", *USER_FEATURES, *MOVIE_FEATURES):
        _assert_values(table, name, expected[name])
    for name, source in HISTORY_FEATURES.items():
        if history_length is None:
            assert name not in table.column_names
        else:
            _assert_lists(table, name, [histories[row] for row in rows], ratings[source].to_numpy())
    if split == "train":
        assert "seen_movie_ids" not in table.column_names
    else:
        _assert_lists(table, "seen_movie_ids", [seen[row] for row in rows], ratings["movie_id"].to_numpy())


def _with_splits(ratings: pd.DataFrame, tables: dict[str, pa.Table]) -> pd.DataFrame:
    written = pd.concat([_keys(table).assign(split=split) for split, table in tables.items()])
    assert not written.duplicated(["user_id", "movie_id"]).any(), "a (user, movie) pair is in two rows"
    assert len(written) == len(ratings)
    merged = ratings.merge(written, "left", ["user_id", "movie_id"], validate="one_to_one")
    assert merged["split"].notna().all(), "a rating is in no split"
    return merged


def _keys(table: pa.Table) -> pd.DataFrame:
    return pd.DataFrame({name: _single_values(table, name) for name in ("user_id", "movie_id")})


def _single_values(table: pa.Table, name: str) -> np.ndarray:
    """The values of a feature that has exactly one value in every row."""
    column = _column(table, name)
    assert column.null_count == 0
    assert len(column.flatten()) == len(column)
    return column.flatten().to_numpy(zero_copy_only=False)


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def _positions(ratings: pd.DataFrame, table: pa.Table) -> np.ndarray:
    """For each row of `table`, the position of its rating in `ratings`."""
    index = pd.MultiIndex.from_frame(ratings[["user_id", "movie_id"]])
    return index.get_indexer(pd.MultiIndex.from_frame(_keys(table)))


def _expected_lists(
    ratings: pd.DataFrame, length: int, strategy: Strategy
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each rating, the positions of the ratings in its history, and of all ratings of the user that it may know."""
    histories: list[np.ndarray] = [np.array([], np.int64)] * len(ratings)
    seen = list(histories)
    for _, group in ratings.groupby("user_id"):
        for split, rows_of_split in group.groupby("split"):
            sources = group[group["split"].isin(_KNOWN_SPLITS.get((strategy, str(split)), ["train"]))]
            moments = sorted(zip(sources["timestamp"].tolist(), sources.index.tolist(), strict=True))
            rows = np.array([row for _, row in moments], np.int64)
            for row, time in zip(rows_of_split.index.tolist(), rows_of_split["timestamp"].tolist(), strict=True):
                earlier = bisect.bisect_left(moments, (time, row))
                histories[row] = rows[max(0, earlier - length) : earlier]
                seen[row] = rows[:earlier] if strategy is Strategy.TEMPORAL_ROLLING else rows
    return histories, seen


def _assert_values(table: pa.Table, name: str, expected: pd.Series) -> None:
    is_known = (expected.notna() & (expected != "")).to_numpy()
    if not is_known.any():
        assert name not in table.column_names or _column(table, name).null_count == len(table)
        return
    column = _column(table, name)
    np.testing.assert_array_equal(column.is_valid().to_numpy(zero_copy_only=False), is_known, err_msg=name)
    if pa.types.is_large_binary(column.type.value_type):
        # The file joins several texts, such as genres, with |.
        texts = pc.binary_join(column.cast(pa.list_(pa.string())), "|")
        assert texts.drop_null().equals(pa.array(expected[is_known], pa.string())), name
    else:
        np.testing.assert_array_equal(column.value_lengths().drop_null().to_numpy(), 1, err_msg=name)
        np.testing.assert_array_equal(column.flatten().to_numpy(), expected[is_known].to_numpy(), err_msg=name)


def _assert_lists(table: pa.Table, name: str, rows: list[np.ndarray], source: np.ndarray) -> None:
    lengths = np.array([len(part) for part in rows])
    if not lengths.any():
        assert name not in table.column_names or _column(table, name).null_count == len(table)
        return
    column = _column(table, name)
    written = np.diff(column.offsets.to_numpy())
    np.testing.assert_array_equal(written, lengths, err_msg=name)
    np.testing.assert_array_equal(column.is_null().to_numpy(zero_copy_only=False), lengths == 0, err_msg=name)
    np.testing.assert_array_equal(column.flatten().to_numpy(), source[np.concatenate(rows)], err_msg=name)


def _assert_movies(table: pa.Table, movies: pd.DataFrame) -> None:
    assert set(table.column_names) <= {"movie_id", *MOVIE_FEATURES}
    np.testing.assert_array_equal(_single_values(table, "movie_id"), movies["movie_id"])
    for name in MOVIE_FEATURES:
        _assert_values(table, name, movies[name])
