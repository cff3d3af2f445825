"""Night after night, what is trained on, measured against, blessed, pushed and refused is what the ledger says."""

from pathlib import Path

import pytest

from tests.nightly.deliveries import Deliveries
from tests.nightly.nights import WINDOW, Nights

RATINGS = 1500


@pytest.mark.e2e
@pytest.mark.timeout(3600)
def test_three_nights(tmp_path: Path) -> None:
    nights = Nights(tmp_path, Deliveries(tmp_path / "raw", WINDOW + 2, RATINGS, seed=1))
    for span in range(1, WINDOW + 1):
        nights.deliver(span)
    first = nights.night()
    assert all(entry["blessed"] for entry in (*first["models"].values(), first["recommender"]))
    # The second night is killed, and goes on.
    nights.deliver(WINDOW + 1)
    nights.run_until("Trainer.dcn")
    nights.night()
    # A join went wrong: nothing that comes of these data replaces what is served.
    before = nights.served()
    nights.deliver(WINDOW + 2, shuffled=True)
    shuffled = nights.night()
    assert not any(entry["blessed"] for entry in (*shuffled["models"].values(), shuffled["recommender"]))
    assert nights.served() == before
