"""Spans of one day each, ingested one after another, pass through the real graph up to Transform."""

from pathlib import Path

import ml_metadata as mlmd
import numpy as np
import pytest
import tensorflow_transform as tft

from benchmarks.data_job import CostObserver, data_pipeline
from components.data.raw_files import read_movielens
from components.data.sample import generate_sample
from components.recommender.stored_data import Movies, read_users
from pipeline.config import load_config
from pipeline.local.errors import NodeFailed
from pipeline.local.runner import run_pipeline
from pipeline.local.store import metadata_config
from tests.components.ingestion.examples_oracle import read_split

pytestmark = [pytest.mark.component, pytest.mark.timeout(900)]

DAYS = (1, 2, 3)
CONFIG = load_config("sample", ["data.spans=2"])


class Store:
    """The folder of the days that have arrived, the folder of later days, and the pipeline's output."""

    def __init__(self, folder: Path):
        self.later, self.days, self.root = folder / "later", folder / "days", folder / "root"
        self.days.mkdir()
        self.root.mkdir()

    def run(self, day: int) -> None:
        """Moves a day into the folder that the pipeline reads, and runs the pipeline."""
        (self.later / f"span-{day}").rename(self.days / f"span-{day}")
        run_pipeline(data_pipeline(self.days, self.root, CONFIG), "local", CostObserver())

    def uris(self, kind: str, component: str) -> list[str]:
        """URIs of a component's live artifacts, oldest first."""
        artifacts = mlmd.MetadataStore(metadata_config(self.root / "metadata.sqlite")).get_artifacts_by_type(kind)
        return [each.uri for each in artifacts if component in each.uri and each.state == each.LIVE]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The pipeline has run on two days; the third day has ratings of comedies only, and has not arrived yet."""
    folder = tmp_path_factory.mktemp("days")
    sample = folder / "sample"
    generate_sample(sample, users=300, movies=150, ratings=9000)
    lines = (sample / "ratings.dat").read_bytes().splitlines(keepends=True)
    data = read_movielens(sample)
    comedies = data.movies["movie_id"][["Comedy" in genres for genres in data.movies["genres"]]]
    is_comedy = data.ratings["movie_id"].isin(comedies).to_numpy()
    for day in DAYS:
        span = folder / "later" / f"span-{day}"
        span.mkdir(parents=True)
        for name in ("users.dat", "movies.dat", "credits.csv"):
            (span / name).write_bytes((sample / name).read_bytes())
        chosen = [line for row, line in enumerate(lines) if row % 3 == day - 1 and (day < 3 or is_comedy[row])]
        (span / "ratings.dat").write_bytes(b"".join(chosen))
    store = Store(folder)
    store.run(1)
    store.run(2)
    return store


def rated_pairs(uris: list[str], *splits: str) -> list[tuple[int, int]]:
    """The pairs of user_id and movie_id in the given splits of examples."""
    tables = [read_split(uri, split) for uri in uris for split in splits]
    columns = [
        np.concatenate([table[name].combine_chunks().flatten().to_numpy() for table in tables])
        for name in ("user_id", "movie_id")
    ]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_all_spans_of_the_window_are_transformed(store):
    first, second = store.uris("Examples", "MovieLensExampleGen")
    transformed = store.uris("Examples", "Transform/transformed_examples")
    counts = [read_split(uri, "train").num_rows for uri in transformed]
    assert counts == [len(rated_pairs([uri], "train")) for uri in (first, second)]
    # The second run has the train ratings of both days.
    assert set(rated_pairs([first], "train")) < set(rated_pairs([second], "train"))


def test_the_recommender_knows_the_ratings_of_all_spans(store):
    first, second = store.uris("Examples", "MovieLensExampleGen")
    transform = tft.TFTransformOutput(store.uris("TransformGraph", "Transform")[-1])
    ids = np.array([0, *(int(word) for word in transform.vocabulary_by_name("movie_id_vocabulary")), 0])
    users = read_users(second, transform, Movies(ids, np.full(len(ids), b"", object), ids > 0))
    seen = {(int(users.ids[row]), int(ids[movie])) for row in range(1, len(users.ids)) for movie in users.seen_by(row)}
    everything = set(rated_pairs([second], "train", "eval", "test", "past"))
    assert seen == everything
    assert set(rated_pairs([first], "train", "eval", "test")) < everything


def test_a_day_that_drifts_from_the_previous_one_stops_the_pipeline(store):
    graphs = store.uris("TransformGraph", "Transform")
    with pytest.raises(NodeFailed, match=r"(?s)DataGate failed:.*newest_previous, genres"):
        store.run(3)
    assert store.uris("TransformGraph", "Transform") == graphs
