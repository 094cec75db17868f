"""Models of an MLflow Model Registry, wherever a model is given: `models:/psreid@champion` or `models:/psreid/3`.

The driver pins an alias to its version once, so that every worker of a job loads the same; a version is downloaded
into a cache folder named by it. What is loaded from there are the safetensors files that every saved model has.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from modeling.errors import StorageError, WeightsError
from workflows.storage import Folder
from workflows.tracking.client import check_server, connect_client, is_outage
from workflows.tracking.config import URI_VARIABLE, checked_uri
from workflows.tracking.outbox import first_line

PREFIX = "models:/"
FORM = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
ORIGIN_FILE = "origin.json"
MODEL = "model"

Settings = TypeVar("Settings", bound=BaseModel)


def pin_models(config: Settings) -> Settings:
    """The same settings with every `models:/` value pinned to a version, which is in the cache then."""
    uri = getattr(config, "tracking_uri", None)
    before = {name: getattr(config, name) for name in type(config).model_fields}
    after = {name: _pinned(value, uri) for name, value in before.items()}
    return config.model_copy(update={name: after[name] for name in after if after[name] is not before[name]})


def pin_model(model: str, *, uri: str | None = None) -> str:
    """models:/NAME/VERSION for a registered model, downloaded if it is not in the cache; other models as they are.

    Raises WeightsError naming what is registered, StorageError when the server does not answer.
    """
    if not model.startswith(PREFIX):
        return model
    server = _server(model, uri)
    check_server(server)
    with _explained(server):
        client = connect_client(server)
        version = _find(client, model, server)
        folder = _cache_folder(server, version.name, version.version)
        origin = {"created": str(version.creation_timestamp), "run": version.run_id or "", "server": server}
        if _origin(folder) != origin:
            _download(client, version, folder, origin)
    os.environ[URI_VARIABLE] = server  # for workers of a local Ray, which look into the same cache
    return f"{PREFIX}{version.name}/{version.version}"


def local_model(model: str) -> str:
    """The folder of a registered model, downloaded where this machine does not have it; other models as they are."""
    found = FORM.fullmatch(model)
    if found is None and not model.startswith(PREFIX):
        return model
    if found is not None and found["version"] is not None:
        folder = _cache_folder(_server(model, None), found["name"], found["version"])
        if _origin(folder):
            return str(folder / MODEL)
    return local_model(pin_model(model))


def _pinned(value: Any, uri: str | None) -> Any:
    """The value with every registered model in it pinned; the very same object where there is none."""
    if isinstance(value, str):
        return pin_model(value, uri=uri) if value.startswith(PREFIX) else value
    if isinstance(value, dict):
        inner = {name: _pinned(one, uri) for name, one in value.items()}
        return inner if any(inner[name] is not value[name] for name in value) else value
    return value


def _server(model: str, uri: str | None) -> str:
    server = checked_uri(uri or os.environ.get(URI_VARIABLE))
    if server is None:
        raise WeightsError(
            f"{model} lies in a Model Registry, and no server is known. Set MLFLOW_TRACKING_URI, or give "
            "--tracking-uri."
        )
    return server


def _find(client: Any, model: str, server: str) -> Any:
    """The model version that a `models:/` address names."""
    from mlflow.exceptions import MlflowException

    found = FORM.fullmatch(model)
    if found is None:
        raise WeightsError(f"{model!r} is no address of a registered model. Give models:/NAME@ALIAS or models:/NAME/3.")
    try:
        if found["alias"]:
            return client.get_model_version_by_alias(found["name"], found["alias"])
        return client.get_model_version(found["name"], found["version"])
    except MlflowException as error:
        if is_outage(error):
            raise
        raise WeightsError(f"{server} has no {model}; it has {_registered(client)}.") from error


def _registered(client: Any) -> str:
    """What is registered, in words."""
    models = client.search_registered_models(max_results=20)
    names = [
        f"{model.name} ({', '.join(f'@{alias}' for alias in sorted(model.aliases)) or 'no alias'})" for model in models
    ]
    return ", ".join(names) or "no registered model yet: `psreid sweep` registers its best"


def _download(client: Any, version: Any, folder: Path, origin: Mapping[str, str]) -> None:
    """Fetches the version's files beside the cache folder and moves them there at the end."""
    from mlflow.artifacts import download_artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as temporary:
        source = client.get_model_version_download_uri(version.name, version.version)
        fetched = Path(download_artifacts(artifact_uri=source, dst_path=temporary, tracking_uri=origin["server"]))
        made = Path(temporary) / "made"
        made.mkdir()
        fetched.rename(made / MODEL)
        Folder(str(made)).write_json(ORIGIN_FILE, dict(origin))
        shutil.rmtree(folder, ignore_errors=True)
        try:
            made.rename(folder)
        except OSError:  # another process was faster
            if not _origin(folder):
                raise


def _origin(folder: Path) -> dict[str, str] | None:
    """Where the cached files came from; None while there are none."""
    kept = Folder(str(folder))
    return dict(kept.read_json(ORIGIN_FILE)) if kept.exists(ORIGIN_FILE) else None


def _cache_folder(server: str, name: str, version: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    place = re.sub(r"[^A-Za-z0-9.-]+", "-", server.partition("://")[2])
    return Path(home) / "psreid" / "models" / place / name / f"version-{version}"


@contextmanager
def _explained(server: str) -> Any:
    """Turns MLflow's own errors into one that says what to do."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise StorageError(
            f"the Model Registry at {server} did not give the model: {first_line(error)}. Check that the server runs, "
            "or give the folder of a model."
        ) from error
