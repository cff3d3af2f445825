"""The summary of a run and its table."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.config import load_config
from pipeline.local import report
from pipeline.local.report import Artifact, model_summary, models_table, reasons_not_pushed, summarise, write_summary
from pipeline.nodes import NodeRun

RANKING = {
    "": {"example_count": 9945.0},
    "predicted_rating": {"root_mean_squared_error": 0.815, "mean_absolute_error": 0.643},
    "bias_predicted_rating": {"root_mean_squared_error": 0.872, "mean_absolute_error": 0.690},
    "squared_error_gain": {"mean_prediction": 0.097},
}
RETRIEVAL = {
    "recall_at_10": {"mean_prediction": 0.15},
    "recall_at_10_filtered": {"mean_prediction": 0.25},
    "ndcg_at_10_filtered": {"mean_prediction": 0.12},
    "popularity_recall_at_10": {"mean_prediction": 0.03},
    "popularity_recall_at_10_filtered": {"mean_prediction": 0.05},
    "recall_at_10_filtered_gain": {"mean_prediction": 0.20},
}
EVALUATIONS = {"dcn": RANKING, "retrieval": RETRIEVAL, "ranking": RANKING, "joint": RANKING | RETRIEVAL}


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
    found["Pusher.recommender"] = {
        "pushed_model": Artifact("/pushed", {"pushed": 1, "pushed_destination": "/serving/recommender/1700000001"})
    }
    return found


def summary(outputs: dict[str, dict[str, Artifact]]) -> dict[str, Any]:
    return summarise(
        load_config("sample", ["data.split.seed=3"]),
        [NodeRun("Transform", "complete", 41.234, 5), NodeRun("Resolver.dcn", "resolved", 0.1, 6)],
        outputs,
        seconds=123.45,
        peak_rss_mb=2000,
        finished="2024-01-01T00:00:00+00:00",
        log=Path("/logs/run.log"),
    )


def test_rating_metrics_and_their_baseline() -> None:
    entry = model_summary(RANKING, [], blessed=True, pushed="/serving/ranking/1")
    assert entry == {
        "metrics": {"rmse": 0.815, "mae": 0.643},
        "baseline": {"rmse": 0.872, "mae": 0.690},
        "blessed": True,
        "reasons": [],
        "pushed": "/serving/ranking/1",
    }


def test_retrieval_metrics_and_their_baseline_without_the_gates_own() -> None:
    entry = model_summary(RETRIEVAL, [], blessed=True, pushed=None)
    assert entry["metrics"] == {"recall_at_10": 0.15, "recall_at_10_filtered": 0.25, "ndcg_at_10_filtered": 0.12}
    assert entry["baseline"] == {"recall_at_10": 0.03, "recall_at_10_filtered": 0.05}


def test_the_joint_model_has_both() -> None:
    entry = model_summary(RANKING | RETRIEVAL, [], blessed=True, pushed=None)
    assert {"rmse", "mae", "recall_at_10"} <= set(entry["metrics"])
    assert {"rmse", "mae", "recall_at_10"} <= set(entry["baseline"])


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
    assert found["recommender"] == {"pushed": "/serving/recommender/1700000001"}
    assert (found["seconds"], found["peak_rss_mb"], found["seeds"]["split"]) == (123.5, 2000, 3)
    assert reasons_not_pushed(found) == {"joint": "squared_error_gain of joint is too small"}
    assert json.loads(json.dumps(found)) == found


def test_a_recommender_that_was_not_pushed_is_unmet(outputs: dict[str, dict[str, Artifact]]) -> None:
    outputs["Pusher.recommender"] = {"pushed_model": Artifact("/pushed", {"pushed": 0})}
    found = summary(outputs)
    assert found["recommender"] == {"pushed": None}
    assert list(reasons_not_pushed(found)) == ["joint", "recommender"]


def test_the_table_says_what_the_summary_says(outputs: dict[str, dict[str, Artifact]]) -> None:
    file = io.StringIO()
    Console(file=file, width=80).print(models_table(summary(outputs)))
    text = file.getvalue()
    for expected in ("0.8150", "0.8720", "0.2500", "0.0500", "recall@10 filtered", "1700000001"):
        assert expected in text


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
            metric_key { name: "mean_prediction" output_name: "recall_at_10_filtered_gain" is_diff: true }
            metric_threshold { change_threshold { direction: HIGHER_IS_BETTER absolute { value: -0.002 } } }
            metric_value { double_value { value: -0.05 } }
          }
          failures {
            metric_key { name: "mean_prediction" output_name: "ndcg" }
            message: "Metric not found."
          }
        }
        """,
        validation_result_pb2.ValidationResult(),
    )
    with tf.io.TFRecordWriter(str(tmp_path / "validations.tfrecord")) as writer:
        writer.write(result.SerializeToString())
    assert report.read_refusals(str(tmp_path)) == [
        "squared_error_gain is 0.0020; should be at least 0.0100",
        "recall_at_10_filtered_gain against the latest blessed model changes by -0.0500; should be at least -0.0020",
        "ndcg: Metric not found.",
    ]
