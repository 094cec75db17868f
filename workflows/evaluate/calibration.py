"""A copy of a model whose scores are shifted, so that a match lies above 0."""

import json
import shutil
from pathlib import Path

from modeling.errors import ConfigError
from modeling.ps_reid.folder import CONFIG_FILE, model_folder
from workflows.evaluate.threshold import DECIMALS
from workflows.tracking.registry import local_model


def write_calibrated(model: str, threshold: float, out: str) -> str:
    """Copies a saved PS-ReID model to the folder `out`, with `threshold` taken off every score; returns its path.

    Raises ConfigError when something lies at `out` already.
    """
    target = Path(out).expanduser().resolve()
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} is not empty; give a new folder for the calibrated model")
    shutil.copytree(model_folder(local_model(model)), target, dirs_exist_ok=True)
    config = json.loads((target / CONFIG_FILE).read_text())
    config["score_bias"] = round(config.get("score_bias", 0.0) + threshold, DECIMALS)
    (target / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    return str(target)
