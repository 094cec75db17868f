"""Where a saved model lies and what identifies it. Light on purpose: a driver asks this without loading torch."""

import hashlib
import json
from pathlib import Path

from modeling.errors import WeightsError

SHIPPED_FOLDER = Path(__file__).resolve().parent.parent / "weights"
CONFIG_FILE = "config.json"


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
    try:
        family = json.loads((folder / CONFIG_FILE).read_text()).get("family")
    except (OSError, ValueError, AttributeError):
        return None
    return family if isinstance(family, str) else None


def model_identity(model: str) -> str:
    """16 hex digits that change with any weights or config file of the model."""
    folder, digest = model_folder(model), hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.suffix in {".json", ".safetensors", ".model"}):
        digest.update(str(file.relative_to(folder)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
