"""The report on feature importance, as JSON, as a picture and as a fragment of HTML."""

import base64
import html
import io
import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from components.importance.permutation import FEWEST_ROWS, Importance

JSON_FILE, PICTURE_FILE, HTML_FILE = "importance.json", "importance.png", "importance.html"

_TOP_PAIRS = 10  # Number of pairs that the HTML lists; the JSON lists all.


@dataclass(frozen=True)
class CrossWeights:
    """How strongly the first cross layer's weights join each pair of features.

    Attributes:
      norms: float [features, features], symmetric, Frobenius norms of the pairs' blocks of weights, corrected for the
        scale of the embeddings.
      effects: the same shape, standard deviation over rows of what a pair's products add to the output. Unlike the
        norms, they are also corrected for the directions of the embeddings and for the effect of the later layers.
    """

    norms: np.ndarray
    effects: np.ndarray


@dataclass(frozen=True)
class Report:
    """The importance of features.

    Attributes:
      features: their names.
      objective: name of the loss whose increase is the permutation importance.
      unit: unit of the model's output.
      rows: number of rows in which features were shuffled.
      seed: seed of the shuffling.
      importance: permutation importance of features and pairs; None if there were too few rows to shuffle.
      weights: strength of pairs by the cross weights; None for a model without cross layers.
    """

    features: list[str]
    objective: str
    unit: str
    rows: int
    seed: int
    importance: Importance | None
    weights: CrossWeights | None

    @property
    def note(self) -> str | None:
        """What a reader should know who looks for the permutation importance in vain; None if it is there."""
        if self.importance is not None:
            return None
        return (
            f"Too few rows: features are shuffled among {FEWEST_ROWS} eval rows or more for which the {self.objective} "
            f"is defined; there were {self.rows}. So there is no permutation importance."
        )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs of different features, each once, in the order of the features."""
        return [(one, other) for place, one in enumerate(self.features) for other in self.features[place + 1 :]]


@dataclass(frozen=True)
class Pair:
    """Two different features.

    Attributes:
      features: their names.
      interaction: from `Importance.pairs`, None with too few rows.
      effect: from `CrossWeights.effects`, None without cross layers.
      norm: from `CrossWeights.norms`, None without cross layers.
    """

    features: tuple[str, str]
    interaction: float | None
    effect: float | None = None
    norm: float | None = None


def ranked_features(report: Report) -> list[tuple[str, float | None]]:
    """Returns the features with their increases of the loss, the most important first if that is known."""
    if report.importance is None:
        return [(name, None) for name in report.features]
    growths = report.importance.features
    return [(name, growths[name]) for name in sorted(growths, key=lambda name: -growths[name])]


def ranked_pairs(report: Report) -> list[Pair]:
    """Returns the pairs of features, sorted by falling effect or, without cross layers, by falling interaction.

    With neither, they are in the order of the features.
    """
    place = {name: index for index, name in enumerate(report.features)}
    pairs = []
    for names in report.pairs:
        cell = place[names[0]], place[names[1]]
        interaction = None if report.importance is None else report.importance.pairs[names]
        weights = report.weights
        read = (None, None) if weights is None else (float(weights.effects[cell]), float(weights.norms[cell]))
        pairs.append(Pair(names, interaction, *read))
    return sorted(pairs, key=lambda pair: -((pair.interaction or 0.0) if pair.effect is None else pair.effect))


def to_json(report: Report) -> str:
    """Formats the whole report as JSON; what could not be measured is null, and `note` then says why."""
    note = {} if report.note is None else {"note": report.note}
    document = note | {
        "objective": report.objective,
        "loss": None if report.importance is None else report.importance.loss,
        "rows": report.rows,
        "seed": report.seed,
        "features": [{"feature": name, "increase": growth} for name, growth in ranked_features(report)],
        "pairs": [
            {
                "features": list(pair.features),
                "effect": pair.effect,
                "norm": pair.norm,
                "interaction": pair.interaction,
            }
            for pair in ranked_pairs(report)
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def draw(report: Report) -> bytes:
    """Draws the pairs as heat maps and the features as bars, side by side; returns a PNG file.

    With too few rows, the note takes the place of the bars.
    """
    maps = []
    if report.importance is not None:
        interactions = _interaction_matrix(report.features, report.importance)
        maps.append(("Pairs: permutation", f"interaction in {report.objective}", interactions))
    if report.weights is not None:
        maps.insert(0, ("Pairs: cross weights", f"effect on the prediction, {report.unit}", report.weights.effects))
    figure = Figure(figsize=(5.2 * (len(maps) + 1), 5.6), layout="constrained")
    *places, last = figure.subplots(1, len(maps) + 1, squeeze=False)[0]
    for axes, (title, label, values) in zip(places, maps, strict=True):
        _draw_pairs(figure, axes, report.features, values, title, label)
    last.set_title("Features: permutation")
    last.set_box_aspect(1)
    if report.importance is None:
        last.set_axis_off()
        last.text(0.5, 0.5, textwrap.fill(report.note or "", 40), ha="center", va="center", transform=last.transAxes)
    else:
        names, growths = zip(*reversed(ranked_features(report)), strict=True)
        last.barh(names, growths, color="#31688e")
        last.set_xlabel(f"increase of {report.objective} (unshuffled: {report.importance.loss:.3f})")
        last.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _interaction_matrix(features: list[str], importance: Importance) -> np.ndarray:
    place = {name: index for index, name in enumerate(features)}
    matrix = np.full((len(place), len(place)), np.nan)
    for (one, other), value in importance.pairs.items():
        matrix[place[one], place[other]] = matrix[place[other], place[one]] = value
    return matrix


def _draw_pairs(figure: Figure, axes: Axes, features: list[str], values: np.ndarray, title: str, label: str) -> None:
    """Draws a heat map of pairs of different features, each pair once, below the diagonal."""
    shown = np.ma.masked_invalid(np.where(np.tri(len(features), k=-1, dtype=bool), values, np.nan))[1:, :-1]
    most = float(np.abs(shown).max())
    if shown.min() < 0:
        image = axes.imshow(shown, cmap="RdBu_r", vmin=-most, vmax=most)
    else:
        image = axes.imshow(shown, cmap="Reds", vmin=0, vmax=most)
    for (row, column), value in np.ndenumerate(shown.filled(np.nan)):
        if np.isfinite(value):
            color = "white" if abs(value) > 0.6 * most else "black"
            axes.text(column, row, _cell_label(value), ha="center", va="center", color=color, fontsize=7)
    axes.set_xticks(range(len(features) - 1), features[:-1], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(features) - 1), features[1:])
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)


def _cell_label(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00")


def to_html(report: Report, picture: bytes) -> str:
    """Formats the report as a self-contained `<section>`, with the picture embedded."""
    encoded = base64.b64encode(picture).decode("ascii")
    cells = [(name, _number_or_dash(growth)) for name, growth in ranked_features(report)]
    pairs = [
        (
            " x ".join(pair.features),
            _number_or_dash(pair.effect),
            _number_or_dash(pair.norm),
            _number_or_dash(pair.interaction),
        )
        for pair in ranked_pairs(report)[:_TOP_PAIRS]
    ]
    if report.importance is None:
        measured = f"{html.escape(report.note or '')} How"
    else:
        measured = (
            f"Increase of the {html.escape(report.objective)} (unshuffled: {report.importance.loss:.4f}) when features "
            f"are shuffled among\n{report.rows:,} eval rows; and how"
        )
    return f"""<section class="feature-importance">
<h2>Feature importance</h2>
<p>{measured} much the pairs' cross weights move the prediction, in {html.escape(report.unit)}.</p>
<img style="max-width:100%" alt="Heat maps of feature pairs, bars of features" src="data:image/png;base64,{encoded}">
{_html_table(("feature", "increase when shuffled"), cells)}
{_html_table(("pair", "effect of cross weights", "norm of cross weights", "interaction when shuffled"), pairs)}
</section>
"""


def _number_or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _html_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
