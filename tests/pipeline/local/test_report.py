"""The summary of a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import EvaluationConfig, load_config
from pipeline.local import report
from pipeline.local.choices import Artifact, Champion, MadeOf
from pipeline.local.report import model_summary, reasons_not_pushed, summarise, write_summary
from pipeline.local.tables import made_of_lines
from pipeline.nodes import NodeRun

TOLERANCES = EvaluationConfig(recall_tolerance=0.002, mse_tolerance=0.003, liked_tolerance=0.004).tolerances
RANKING = {
    "": {"example_count": 9945.0},
    "predicted_rating": {"root_mean_squared_error": 0.815, "mean_absolute_error": 0.643},
    "bias_predicted_rating": {"root_mean_squared_error": 0.872, "mean_absolute_error": 0.690},
    "squared_error_gain": {"mean_prediction": 0.097},
}
KEPT = {
    "squared_error": {"mean_prediction": 0.66},
    "squared_error_after_1_year": {"mean_prediction": 0.70, "share_kept": 0.97},
    "squared_error_new_with_history": {"mean_prediction": 0.80, "share_kept": 0.91},
}
RETRIEVAL = {
    "recall_at_10": {"mean_prediction": 0.15},
    "recall_at_10_filtered": {"mean_prediction": 0.25},
    "ndcg_at_10_filtered": {"mean_prediction": 0.12},
    "popularity_recall_at_10": {"mean_prediction": 0.03},
    "popularity_recall_at_10_filtered": {"mean_prediction": 0.05},
    "recall_at_10_filtered_gain": {"mean_prediction": 0.20},
    "recall_at_10_filtered_after_1_year": {"mean_prediction": 0.24, "share_kept": 0.96},
}
RECOMMENDER = {
    "recall_at_10": {"mean_prediction": 0.27, "liked_mean": 0.31},
    "ndcg_at_10": {"mean_prediction": 0.14, "liked_mean": 0.18},
    "retrieval_recall_at_10": {"mean_prediction": 0.28, "liked_mean": 0.30},
    "retrieval_ndcg_at_10": {"mean_prediction": 0.13, "liked_mean": 0.15},
    "popularity_recall_at_10": {"mean_prediction": 0.06, "liked_mean": 0.07},
    "popularity_ndcg_at_10": {"mean_prediction": 0.02, "liked_mean": 0.03},
    "popularity_by_group_recall_at_10": {"mean_prediction": 0.08},
    "recall_at_10_over_retrieval": {"mean_prediction": -0.01, "liked_mean": 0.01},
    "recall_at_10_after_30_days": {"mean_prediction": 0.26, "share_kept": 0.96},
    "recall_at_10_new_without_history": {"mean_prediction": 0.10, "share_kept": 0.37},
    "rating_error": {"hit_mean": 0.1},
    "": {"example_count": 9945.0},
}
EVALUATIONS = {
    "dcn": RANKING,
    "retrieval": RETRIEVAL,
    "ranking": RANKING | KEPT,
    "joint": RANKING | RETRIEVAL,
    "recommender": RECOMMENDER,
}


MADE_OF = MadeOf({"retrieval": (3, "/model/3"), "ranking": (4, "/model/4")}, None, "")


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Artifact]]:
    """The outputs of a run in which the joint model was refused."""
    monkeypatch.setattr(report, "read_evaluation", EVALUATIONS.__getitem__)
    monkeypatch.setattr(report, "read_refusals", lambda uri: [f"squared_error_gain of {uri} is too small"])
    found: dict[str, dict[str, Artifact]] = {"Transform": {"transform_graph": Artifact("/graph")}}
    for name in EVALUATIONS:
        blessed = int(name != "joint")
        found[f"Evaluator.{name}"] = {
            "evaluation": Artifact(name),
            "blessing": Artifact(f"/blessing/{name}", {"blessed": blessed}),
        }
        pushed: dict[str, Any] = {"pushed": blessed}
        if blessed:
            pushed["pushed_destination"] = f"/serving/{name}/1700000000"
        found[f"Pusher.{name}"] = {"pushed_model": Artifact(f"/pushed/{name}", pushed)}
    return found


def summary(outputs: dict[str, dict[str, Artifact]], made_of: MadeOf | None = MADE_OF) -> dict[str, Any]:
    return summarise(
        load_config("sample", ["data.split.seed=3"]),
        [NodeRun("Transform", "complete", 41.234, 5), NodeRun("Resolver.dcn", "resolved", 0.1, 6)],
        outputs,
        {"ranking": Champion(12, "/model/12", "model 15 was fitted to 3 of this run's 9 test rows")},
        made_of,
        seconds=123.45,
        peak_rss_mb=2000,
        finished="2024-01-01T00:00:00+00:00",
        log=Path("/logs/run.log"),
    )


def test_rating_metrics_and_their_baseline() -> None:
    entry = model_summary(RANKING, [], blessed=True, pushed="/serving/ranking/1", tolerances=TOLERANCES)
    assert entry == {
        "metrics": {"rmse": 0.815, "mae": 0.643},
        "baseline": {"rmse": 0.872, "mae": 0.690},
        "kept": {},
        "champion": None,
        "against_champion": {},
        "blessed": True,
        "reasons": [],
        "pushed": "/serving/ranking/1",
    }


def test_retrieval_metrics_and_their_baseline_without_the_gates_own() -> None:
    entry = model_summary(RETRIEVAL, [], blessed=True, pushed=None, tolerances=TOLERANCES)
    assert entry["metrics"] == {"recall_at_10": 0.15, "recall_at_10_filtered": 0.25, "ndcg_at_10_filtered": 0.12}
    assert entry["baseline"] == {"recall_at_10": 0.03, "recall_at_10_filtered": 0.05}


def test_the_joint_model_has_both() -> None:
    entry = model_summary(RANKING | RETRIEVAL, [], blessed=True, pushed=None, tolerances=TOLERANCES)
    assert {"rmse", "mae", "recall_at_10"} <= set(entry["metrics"])
    assert {"rmse", "mae", "recall_at_10"} <= set(entry["baseline"])


def test_what_is_kept_in_each_situation_is_there_by_main_metric() -> None:
    entry = model_summary(RANKING | RETRIEVAL | KEPT, [], blessed=True, pushed=None, tolerances=TOLERANCES)
    assert entry["kept"] == {
        "recall_at_10_filtered": {"after_1_year": 0.96},
        "squared_error": {"after_1_year": 0.97, "new_with_history": 0.91},
    }


def test_the_recommender_has_its_list_and_the_lists_that_it_is_compared_with() -> None:
    entry = model_summary(RECOMMENDER, ["not good enough"], blessed=False, pushed=None, tolerances=TOLERANCES)
    assert entry == {
        "metrics": {"recall_at_10": 0.27, "liked_recall_at_10": 0.31, "ndcg_at_10": 0.14, "liked_ndcg_at_10": 0.18},
        "retrieval": {"recall_at_10": 0.28, "liked_recall_at_10": 0.30, "ndcg_at_10": 0.13, "liked_ndcg_at_10": 0.15},
        "baseline": {"recall_at_10": 0.06, "liked_recall_at_10": 0.07, "ndcg_at_10": 0.02, "liked_ndcg_at_10": 0.03},
        "by_group": {"recall_at_10": 0.08},
        "kept": {"recall_at_10": {"after_30_days": 0.96, "new_without_history": 0.37}},
        "champion": None,
        "against_champion": {},
        "blessed": False,
        "reasons": ["not good enough"],
        "pushed": None,
    }


@pytest.mark.parametrize(
    ("at_worst", "at_best", "verdict"),
    [
        (-0.0019, 0.01, "no worse"),
        (0.001, 0.01, "no worse"),
        (-0.002, -0.001, "no worse"),
        (-0.0021, 0.01, "undecided"),
        (-0.1, -0.002, "undecided"),
        (-0.1, -0.0021, "worse"),
        (None, None, "no value"),
    ],
)
def test_the_verdict_against_the_champion_is_by_both_bounds(
    at_worst: float | None, at_best: float | None, verdict: str
) -> None:
    bounds = {"change": 0.0, "change_at_worst": at_worst, "change_at_best": at_best}
    compared: dict[str, dict[str, float | None]] = {"recall_at_10_filtered": {"mean_prediction": 0.25, **bounds}}
    entry = model_summary(compared, [], blessed=True, pushed=None, tolerances=TOLERANCES)
    expected = {"change": 0.0, "at_worst": at_worst, "at_best": at_best, "verdict": verdict}
    assert entry["against_champion"] == {"recall_at_10_filtered": expected}


def test_the_recommender_is_compared_over_all_rows_and_over_liked_ones() -> None:
    all_rows = {"change": 0.01, "change_at_worst": 0.0, "change_at_best": 0.02}
    liked = {"liked_change": -0.01, "liked_change_at_worst": -0.02, "liked_change_at_best": -0.005}
    compared = {
        "recall_at_10": RECOMMENDER["recall_at_10"] | all_rows,
        "ndcg_at_10": RECOMMENDER["ndcg_at_10"] | liked,
    }
    entry = model_summary(RECOMMENDER | compared, ["worse"], blessed=False, pushed=None, tolerances=TOLERANCES)
    assert {metric: values["verdict"] for metric, values in entry["against_champion"].items()} == {
        "recall_at_10": "no worse",
        "liked_ndcg_at_10": "worse",
    }


def test_the_summary_of_a_run(outputs: dict[str, dict[str, Artifact]]) -> None:
    found = summary(outputs)
    assert found["components"] == [
        {"id": "Transform", "seconds": 41.23, "state": "complete"},
        {"id": "Resolver.dcn", "seconds": 0.1, "state": "resolved"},
    ]
    assert set(found["models"]) == {"dcn", "retrieval", "ranking", "joint"}
    assert found["models"]["dcn"]["pushed"] == "/serving/dcn/1700000000"
    assert found["models"]["joint"]["blessed"] is False
    assert found["models"]["joint"]["pushed"] is None
    assert found["models"]["joint"]["reasons"] == ["squared_error_gain of joint is too small"]
    parts = {"retrieval": (3, "/model/3"), "ranking": (4, "/model/4")}
    assert found["recommender"] == {
        **model_summary(RECOMMENDER, [], True, "/serving/recommender/1700000000", TOLERANCES),
        "made_of": {"parts": parts, "transform_graph": None, "why": ""},
    }
    assert found["recommender_parts"] == ["retrieval", "ranking"]
    why = "model 15 was fitted to 3 of this run's 9 test rows"
    assert found["models"]["ranking"]["champion"] == {"model": 12, "uri": "/model/12", "why": why}
    assert (found["seconds"], found["peak_rss_mb"], found["seeds"]["split"]) == (123.5, 2000, 3)
    assert reasons_not_pushed(found) == {
        "joint": "was not blessed, so it was not pushed: squared_error_gain of joint is too small"
    }
    as_json = json.loads(json.dumps(found))
    assert as_json["recommender"]["made_of"]["parts"]["ranking"] == [4, "/model/4"]
    assert as_json["models"] == found["models"]


def test_a_refused_recommender_is_measured_and_its_reason_is_told(outputs: dict[str, dict[str, Artifact]]) -> None:
    refused = {"evaluation": Artifact("recommender"), "blessing": Artifact("/blessing", {"blessed": 0})}
    outputs |= {
        "Evaluator.recommender": refused,
        "Pusher.recommender": {"pushed_model": Artifact("/pushed", {"pushed": 0})},
    }
    found = summary(outputs)
    reasons = ["squared_error_gain of recommender is too small"]
    del found["recommender"]["made_of"]
    assert found["recommender"] == model_summary(RECOMMENDER, reasons, False, None, TOLERANCES)
    assert "recommender" not in found["models"]
    assert reasons_not_pushed(found)["recommender"] == f"was not blessed, so it was not pushed: {reasons[0]}"


@pytest.mark.parametrize("name", ["dcn", "recommender"])
def test_a_blessed_model_that_the_pusher_refused_has_its_reason(
    outputs: dict[str, dict[str, Artifact]], name: str
) -> None:
    reason = "withdrawn on 2026-03-01: it loves sequels"
    outputs[f"Pusher.{name}"] = {"pushed_model": Artifact("/pushed", {"pushed": 0, "refused": reason})}
    found = summary(outputs)
    entry = {**found["models"], "recommender": found["recommender"]}[name]
    assert (entry["blessed"], entry["reasons"], entry["pushed"]) == (True, [reason], None)
    assert reasons_not_pushed(found)[name] == f"was blessed, but it was not pushed: {reason}"


@pytest.mark.parametrize(
    ("made_of", "why"),
    [
        (MadeOf({}, None, "this run's joint was not blessed"), "this run's joint was not blessed"),
        (None, "its parts were not measured"),
    ],
)
def test_a_recommender_that_was_not_built_has_its_reason(
    outputs: dict[str, dict[str, Artifact]], made_of: MadeOf | None, why: str
) -> None:
    del outputs["Evaluator.recommender"]
    del outputs["Pusher.recommender"]
    found = summary(outputs, made_of)
    reason = f"it was not built: {why}"
    assert {name: found["recommender"][name] for name in ("blessed", "reasons", "pushed")} == {
        "blessed": False,
        "reasons": [reason],
        "pushed": None,
    }
    assert reasons_not_pushed(found)["recommender"] == f"was not blessed, so it was not pushed: {reason}"
    assert list(reasons_not_pushed(found)) == ["joint", "recommender"]
    assert made_of_lines(found) == []


def test_a_recommender_of_an_earlier_pair_is_said_to_be_one(outputs: dict[str, dict[str, Artifact]]) -> None:
    assert made_of_lines(summary(outputs)) == []
    earlier = replace(MADE_OF, transform_graph="/graph/2", why="this run's ranking was not blessed")
    assert made_of_lines(summary(outputs, earlier)) == [
        "The recommender is made of retrieval /model/3, ranking /model/4, because this run's ranking was not blessed"
    ]


def test_a_summary_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_summary({"old": 1}, path)
    with pytest.raises(TypeError):
        write_summary({"cannot be written": object()}, path)
    assert json.loads(path.read_text()) == {"old": 1}
    write_summary({"new": 1}, path)
    assert json.loads(path.read_text()) == {"new": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.component
def test_refusals_name_output_value_and_bound(tmp_path: Path) -> None:
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow_model_analysis.proto import validation_result_pb2

    result = text_format.Parse(
        """
        validation_ok: false
        metric_validations_per_slice {
          failures {
            metric_key { name: "mean_prediction" output_name: "squared_error_gain" }
            metric_threshold { value_threshold { lower_bound { value: 0.01 } } }
            metric_value { double_value { value: 0.002 } }
          }
          failures {
            metric_key { name: "change_at_best" output_name: "recall_at_10_filtered" is_diff: true }
            metric_threshold { change_threshold { direction: HIGHER_IS_BETTER absolute { value: -0.002 } } }
            metric_value { double_value { value: -0.05 } }
          }
          failures {
            metric_key { name: "mean_prediction" output_name: "ndcg" }
            message: "Metric not found."
          }
          failures {
            metric_key { name: "liked_mean" output_name: "ndcg_at_10_over_retrieval" }
            metric_threshold { value_threshold { lower_bound { value: 0.0 } } }
            metric_value { double_value { value: -0.0312 } }
          }
          failures {
            metric_key { name: "share_kept" output_name: "squared_error_after_1_year" }
            metric_threshold { value_threshold { lower_bound { value: 0.95 } } }
            metric_value { double_value { value: 0.9123 } }
          }
        }
        """,
        validation_result_pb2.ValidationResult(),
    )
    with tf.io.TFRecordWriter(str(tmp_path / "validations.tfrecord")) as writer:
        writer.write(result.SerializeToString())
    assert report.read_refusals(str(tmp_path)) == [
        "squared_error_gain is 0.0020; should be at least 0.0100",
        "recall_at_10_filtered against the champion's is -0.0500 at best; should be at least -0.0020",
        "ndcg: Metric not found.",
        "liked_mean of ndcg_at_10_over_retrieval is -0.0312; should be at least 0.0000",
        "share_kept of squared_error_after_1_year is 0.9123; should be at least 0.9500",
    ]
