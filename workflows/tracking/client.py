"""The MLflow client as we use it: short time limits, one try (the outbox tries again), no global state."""

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from modeling.errors import StorageError

ANSWER_WITHIN_S = 20  # of one request
HEALTH_WITHIN_S = 3.0
OUTAGE_STATUS = (408, 429, 500, 502, 503, 504)


def connect_client(uri: str) -> Any:
    """A client of the server or database at `uri`. Imports mlflow, which takes seconds."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(ANSWER_WITHIN_S))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def is_outage(error: Exception) -> bool:
    """Whether trying again can help: the server is away, slow, or says that it is in trouble."""
    status: Callable[[], int] | None = getattr(error, "get_http_status_code", None)
    if status is not None:
        return status() in OUTAGE_STATUS
    return isinstance(error, OSError)  # of which requests' own errors are


def is_healthy(uri: str) -> bool:
    """Whether a server answers at `uri`; a database is taken to be there."""
    if not uri.startswith("http"):
        return True
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=HEALTH_WITHIN_S) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code < 500  # behind a login, say
    except (OSError, ValueError):
        return False


def check_server(uri: str) -> None:
    """Raises StorageError when no server answers: at the start of a run that is worth knowing at once."""
    if not is_healthy(uri):
        raise StorageError(
            f"no MLflow server answers at {uri}. Start one with `psreid tracking`, correct --tracking-uri or "
            "MLFLOW_TRACKING_URI, or leave both out to run without tracking."
        )
