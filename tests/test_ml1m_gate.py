"""MovieLens 1M passes the data gate with every split strategy."""

from pathlib import Path

import pyarrow as pa
import pytest
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.data.raw_files import read_movielens
from components.ingestion.example_rows import EVAL_PART, TRAIN_PART, Columns, MovieTable, encode, make_shards
from components.ingestion.spans import Window
from components.ingestion.splits import SplitConfig, Strategy, with_splits
from tests.components.validation.gate_runs import SCHEMA, Gate

pytestmark = pytest.mark.ml1m


def splits(folder: Path, strategy: Strategy) -> dict[str, pa.Table]:
    """The rows of train, eval and movies as read from tf.Examples, with at most two movies in a history."""
    data = read_movielens(folder)
    movies = MovieTable(data.movies, data.credits)
    every = movies.of(data.movies["movie_id"])
    batches: dict[str, list[pa.Table]] = {"train": [], "eval": [], "movies": [decoded(every)]}
    ratings = with_splits(data.ratings, SplitConfig(strategy=strategy)).assign(span=0)
    for shard in make_shards(ratings, data.users, strategy, Window({0: folder}, 0, ())):
        for part in (TRAIN_PART, EVAL_PART):
            columns = shard.columns(part, movies, 2)
            if len(columns["rating"]):
                batches[part.name].append(decoded(columns))
    return {split: pa.concat_tables(parts, promote_options="default") for split, parts in batches.items()}


def decoded(columns: Columns) -> pa.Table:
    return pa.Table.from_batches([ExamplesToRecordBatchDecoder().DecodeBatch(list(encode(columns)))])


@pytest.mark.parametrize("strategy", Strategy)
def test_every_split_of_real_data_passes(ml1m_dir: Path, tmp_path: Path, strategy: Strategy) -> None:
    names = [feature.name for feature in SCHEMA.feature]
    if not (ml1m_dir / "credits.csv").exists():
        names = [name for name in names if name not in ("director", "star")]
    rows = {
        split: dict(zip(table.column_names, (column.combine_chunks() for column in table.columns), strict=True))
        for split, table in splits(ml1m_dir, strategy).items()
    }
    assert Gate(tmp_path, rows).run(strategy) == names
