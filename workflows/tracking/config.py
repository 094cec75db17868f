"""Settings of a command whose runs can be followed in MLflow."""

import os
from collections.abc import Mapping
from typing import Any

from modeling.errors import ConfigError
from workflows.config import StepConfig

URI_VARIABLE = "MLFLOW_TRACKING_URI"
KINDS = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


class TrackedConfig(StepConfig):
    """Where runs are written down; nothing is, unless a server is named here or in MLFLOW_TRACKING_URI."""

    tracking_uri: str | None = None
    """MLflow server, such as http://127.0.0.1:5000 (`psreid tracking` starts one); by default MLFLOW_TRACKING_URI."""
    experiment: str = "psreid"
    """MLflow experiment that the runs belong to."""


TRACKING_SETTINGS = frozenset(TrackedConfig.model_fields)


def tracking_uri(config: TrackedConfig) -> str | None:
    """The server that a run is written to, or None. ConfigError for what is no MLflow address."""
    return checked_uri(config.tracking_uri or os.environ.get(URI_VARIABLE) or None)


def checked_uri(uri: str | None) -> str | None:
    """The same address. ConfigError when MLflow cannot use it, or when it holds a password."""
    if uri is None:
        return None
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in KINDS:
        raise ConfigError(
            f"tracking_uri {uri!r} is no MLflow address. Give one such as http://127.0.0.1:5000 (`psreid tracking` "
            "starts a server there) or sqlite:////folder/mlflow.db."
        )
    if scheme in ("http", "https") and "@" in uri:
        raise ConfigError(
            "tracking_uri must not hold a user or password. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or MLFLOW_TRACKING_TOKEN, in the environment."
        )
    return uri.rstrip("/")


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted path, as texts."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
