"""Where a saved model lies and what identifies it. Light on purpose: a driver asks this without loading torch."""

import hashlib
import json
from pathlib import Path

from modeling.errors import WeightsError

SHIPPED_FOLDER = Path(__file__).resolve().parent.parent / "weights"
CONFIG_FILE = "config.json"
METRIC_FOLDER = "metric"


def model_folder(model: str) -> Path:
    """The folder of a saved model: the name of shipped weights ("tiny"), or a path.

    Raises WeightsError saying what is there instead.
    """
    for folder in (SHIPPED_FOLDER / model, Path(model).expanduser()):
        if (folder / CONFIG_FILE).is_file():
            return folder
    shipped = sorted(p.parent.name for p in SHIPPED_FOLDER.glob(f"*/{CONFIG_FILE}"))
    raise WeightsError(
        f"no model at {model!r}: {Path(model).expanduser() / CONFIG_FILE} does not exist; weights are shipped for "
        f"{', '.join(shipped) or 'no preset'}; for others give the folder of a trained model"
    )


def model_family(folder: Path) -> str | None:
    """What kind of model a folder holds ("instruct_reid", ...), from its config.json; None where that does not say."""
    return _config_value(folder, "family")


def model_identity(model: str) -> str:
    """16 hex digits that change with any weights or config file of the model."""
    folder, digest = model_folder(model), hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.suffix in {".json", ".safetensors", ".model"}):
        digest.update(str(file.relative_to(folder)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    if (metric := metric_model(model)) is not None and is_shipped(metric):  # else it lies inside the folder
        digest.update(model_identity(metric).encode())
    return digest.hexdigest()[:16]


def is_shipped(model: str) -> bool:
    """Whether the name is one of the shipped weights."""
    return Path(model).name == model and (SHIPPED_FOLDER / model / CONFIG_FILE).is_file()


def metric_model(model: str) -> str | None:
    """The instruct-ReID model, by name or folder, whose features are a saved PS-ReID's metric; None: it has its own."""
    folder = model_folder(model)
    source = _config_value(folder, "metric_source")
    return None if source is None else metric_of(folder, source)


def metric_of(folder: Path, source: str | None) -> str | None:
    """Where the metric named `source` lies for a model saved in `folder`, which holds a copy of one not shipped."""
    return str(folder / METRIC_FOLDER) if (folder / METRIC_FOLDER / CONFIG_FILE).is_file() else source


def _config_value(folder: Path, name: str) -> str | None:
    try:
        value = json.loads((folder / CONFIG_FILE).read_text()).get(name)
    except (OSError, ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None
