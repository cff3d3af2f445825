"""MovieLens 1M passes the data gate with every split strategy."""

from pathlib import Path

import pyarrow as pa
import pytest
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.data.raw_files import read_movielens
from components.ingestion.example_rows import Columns, MovieTable, encode, make_shards
from components.ingestion.splits import SplitConfig, Strategy
from tests.components.validation.gate_runs import SCHEMA, Gate

pytestmark = pytest.mark.ml1m


def splits(folder: Path, strategy: Strategy) -> dict[str, pa.Table]:
    """The rows of train, eval and movies as read from tf.Examples, with at most two movies in a history."""
    data = read_movielens(folder)
    movies = MovieTable(data)
    batches: dict[str, list[pa.Table]] = {"train": [], "eval": [], "movies": [decoded(movies.all())]}
    for shard in make_shards(data, SplitConfig(strategy=strategy)):
        for split, columns in zip(("train", "eval", "test"), shard.columns(movies, 2), strict=True):
            if split in batches and len(columns["rating"]):
                batches[split].append(decoded(columns))
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
