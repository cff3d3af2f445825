"""`python -m pipeline.serving_files`: writes the list of models for stock TensorFlow Serving.

`serving/tensorflow_serving/models.config` names every model that the pipeline pushes: the registered ones and the
recommender.
"""

from pathlib import Path

import serving
from trainers.registry import MODELS, RECOMMENDER

PATH = Path(serving.__file__).parent / "tensorflow_serving" / "models.config"

_HEADER = """\
# For tensorflow_model_server --model_config_file. By default the newest version of each model is served.
# Written by `python -m pipeline.serving_files` from the registry of models.
"""


def models_config() -> str:
    """The file's text: a `ModelServerConfig` in text format."""
    lines = [
        f'  config {{ name: "{name}" base_path: "/models/{name}" model_platform: "tensorflow" }}\n'
        for name in (*MODELS, RECOMMENDER)
    ]
    return _HEADER + "model_config_list {\n" + "".join(lines) + "}\n"


if __name__ == "__main__":
    PATH.write_text(models_config(), encoding="utf-8")
