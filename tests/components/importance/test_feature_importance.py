"""Block norms against a kernel whose crosses are known, and the report in its three forms."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from components.importance.feature_importance import block_norms
from components.importance.permutation import Importance
from components.importance.report import CrossWeights, Report, draw, ranked_pairs, to_html, to_json

FEATURES = ["a", "b<script>", "c"]
DIM = 4


@pytest.fixture
def kernel():
    blocks = np.zeros((3, DIM, 3, DIM))
    blocks[0, :, 2, :] = 1.0  # a x c
    blocks[1, 0, 0, 0] = 1.0  # b x a, weaker
    return blocks.reshape(3 * DIM, 3 * DIM)


def report(effects, norms=None):
    importance = Importance(
        loss=0.75,
        features=dict(zip(FEATURES, (0.125, 0.5, 0.25), strict=True)),
        pairs={("a", "b<script>"): 0.01, ("a", "c"): 0.02, ("b<script>", "c"): 0.03},
    )
    weights = None if effects is None else CrossWeights(effects if norms is None else norms, effects)
    return Report(FEATURES, "mean squared error", "stars", 1234, 0, importance, weights)


def test_strongest_pairs_come_first_in_either_direction(kernel):
    pairs = ranked_pairs(report(block_norms(kernel, np.ones(3 * DIM), 3)))
    assert [pair.features for pair in pairs] == [("a", "c"), ("a", "b<script>"), ("b<script>", "c")]
    assert pairs[2].effect == 0.0
    assert pairs[0].norm == pytest.approx(DIM / np.sqrt(2))


def test_norms_equal_a_loop_over_weights():
    rng = np.random.default_rng(0)
    kernel, scales = rng.standard_normal((3 * DIM, 3 * DIM)), rng.random(3 * DIM)
    for one in range(3):
        for other in range(3):
            total = 0.0
            for i in range(DIM):
                for j in range(DIM):
                    first, second = one * DIM + i, other * DIM + j
                    total += (kernel[first, second] * scales[first] * scales[second]) ** 2 / 2
                    total += (kernel[second, first] * scales[first] * scales[second]) ** 2 / 2
            assert block_norms(kernel, scales, 3)[one, other] == pytest.approx(np.sqrt(total))


def test_rescaling_embeddings_and_the_weights_on_them_changes_nothing(kernel):
    # The model that halves a feature's embeddings and doubles the weights on them computes the same crosses.
    scales = np.random.default_rng(0).uniform(0.5, 3.0, 3 * DIM)
    rescaled = kernel / np.outer(scales, scales)
    np.testing.assert_allclose(block_norms(rescaled, scales, 3), block_norms(kernel, np.ones(3 * DIM), 3))


def test_json_lists_all_the_important_first(kernel):
    document = json.loads(to_json(report(block_norms(kernel, np.ones(3 * DIM), 3))))
    assert (document["objective"], document["loss"], document["rows"]) == ("mean squared error", 0.75, 1234)
    assert document["features"][0] == {"feature": "b<script>", "increase": 0.5}
    assert [pair["interaction"] for pair in document["pairs"]] == [0.02, 0.01, 0.03]


def test_without_cross_weights_interactions_decide():
    document = json.loads(to_json(report(None)))
    assert document["pairs"][0] == {
        "features": ["b<script>", "c"],
        "effect": None,
        "norm": None,
        "interaction": 0.03,
    }
    assert draw(report(None)).startswith(b"\x89PNG")


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("crosses", [True, False])
def test_with_too_few_rows_all_three_forms_say_so(kernel, crosses, rows):
    weights = CrossWeights(*[block_norms(kernel, np.ones(3 * DIM), 3)] * 2) if crosses else None
    unmeasured = Report(FEATURES, "log-loss", "log-odds", rows, 0, None, weights)
    text = to_json(unmeasured)
    assert "NaN" not in text
    document = json.loads(text)
    note = f"2 eval rows or more for which the log-loss is defined; there were {rows}."
    assert note in document["note"]
    assert (document["loss"], document["rows"]) == (None, rows)
    assert document["features"] == [{"feature": name, "increase": None} for name in FEATURES]
    assert [pair["interaction"] for pair in document["pairs"]] == [None] * 3
    assert [pair["effect"] is None for pair in document["pairs"]] == [not crosses] * 3
    picture = draw(unmeasured)
    assert picture.startswith(b"\x89PNG")
    page = Page(to_html(unmeasured, picture))
    assert page.open == []
    assert note in " ".join(page.texts)
    assert "nan" not in " ".join(page.texts)


def test_with_enough_rows_there_is_no_note(kernel):
    assert "note" not in json.loads(to_json(report(block_norms(kernel, np.ones(3 * DIM), 3))))


class Page(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self, text):
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_html_holds_the_picture_and_escapes_names(kernel):
    measured = report(block_norms(kernel, np.ones(3 * DIM), 3))
    picture = draw(measured)
    page = Page(to_html(measured, picture))
    assert page.open == []
    assert "script" not in page.tags
    assert "b<script>" in page.texts
    (source,) = page.sources
    encoded = re.fullmatch(r"data:image/png;base64,(.+)", source)
    assert encoded
    assert base64.b64decode(encoded[1]) == picture
