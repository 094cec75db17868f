"""A copy of a model whose scores are shifted, so that a match lies above 0."""

import json
import shutil
from pathlib import Path

from modeling.errors import ConfigError
from modeling.ps_reid.folder import CONFIG_FILE, model_folder
from workflows.evaluate.threshold import DECIMALS
from workflows.tracking.registry import local_model


def new_folder(out: str) -> Path:
    """The local folder `out`, not there yet or empty. Raises ConfigError otherwise."""
    target = Path(out).expanduser().resolve()
    if "://" in out:
        raise ConfigError(f"{out} is not a local folder; a model is written to one, copy it from there")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty; give a new folder for the calibrated model")
    return target


def write_calibrated(model: str, threshold: float, out: str) -> str:
    """Copies a saved PS-ReID model to the folder `out`, with `threshold` taken off every score; returns its path.

    It appears whole or not at all. Raises ConfigError when something lies at `out` already.
    """
    target = new_folder(out)
    unfinished = target.with_name(f".{target.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(model_folder(local_model(model)), unfinished)
    config = json.loads((unfinished / CONFIG_FILE).read_text())
    config["score_bias"] = round(config.get("score_bias", 0.0) + threshold, DECIMALS)
    (unfinished / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    unfinished.replace(target)
    return str(target)
