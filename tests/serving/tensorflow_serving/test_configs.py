"""The files for stock TensorFlow Serving agree with what the pipeline pushes."""

from pathlib import Path

import pytest
import yaml

import serving
from pipeline.serving_files import PATH, models_config
from trainers.registry import MODELS, RECOMMENDER

FOLDER = Path(serving.__file__).parent / "tensorflow_serving"


@pytest.mark.serving
def test_models_config_names_the_pushed_models():
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = text_format.Parse((FOLDER / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    models = {model.name: (model.base_path, model.model_platform) for model in config.model_config_list.config}
    names = (*MODELS, RECOMMENDER)
    assert models == {name: (f"/models/{name}", "tensorflow") for name in names}


def test_models_config_is_up_to_date():
    assert PATH == FOLDER / "models.config"
    assert PATH.read_text() == models_config(), "python -m pipeline.serving_files writes it anew"


def test_compose_serves_this_machine_only_and_cannot_change_the_models():
    (service,) = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"].values()
    assert service["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    mounts = {volume["target"]: volume for volume in service["volumes"]}
    assert all(volume["read_only"] for volume in mounts.values())
    assert "/models" in mounts
    source = mounts["/config/models.config"]["source"]
    assert (FOLDER / source).is_file()
    assert service["command"] == ["--model_config_file=/config/models.config"]
