"""A client of a cluster's job API: found, authenticated and checked before anything is sent.

Token: `RAY_AUTH_TOKEN`, else the file of `RAY_AUTH_TOKEN_PATH`, else, with `RAY_AUTH_MODE=token`, `~/.ray/auth_token`.
The last is not sent without being asked for, so that a mistyped address does not get it.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling.errors import ConfigError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")  # they set INFO when imported
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 5.0, 10.0
HOW_TO_NAME = "Give the dashboard's URL, such as http://HOST:8265, with --address or RAY_API_SERVER_ADDRESS."


def connect(address: str | None) -> "JobSubmissionClient":
    """A client for the cluster at `address` (None: from the environment); ConfigError says what is wrong with it."""
    url = find_address(address, os.environ)
    token = find_token(os.environ)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    _check_version(_ask_version(url, headers, has_token=bool(token)), url)
    from ray.job_submission import JobSubmissionClient

    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    with _address_in_environment(url):
        return JobSubmissionClient(url, headers=headers)


def find_address(address: str | None, environment: Mapping[str, str]) -> str:
    """The URL of the job API: the flag, `RAY_API_SERVER_ADDRESS`, an http `RAY_ADDRESS`, or this machine."""
    from_ray = environment.get("RAY_ADDRESS", "")
    found = address or environment.get("RAY_API_SERVER_ADDRESS")
    found = found or (from_ray if from_ray.startswith("http") else None) or DEFAULT_ADDRESS
    url = found if "://" in found else f"http://{found}"
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{found} is not the address of a job API. {HOW_TO_NAME}")
    return url.rstrip("/")


def find_token(environment: Mapping[str, str]) -> str | None:
    """The token to send, or None; ConfigError if a file that should hold it cannot be read."""
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    token = environment.get("RAY_AUTH_TOKEN", "").strip()
    if token:
        return token
    wanted = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(wanted).expanduser() if wanted else Path.home() / ".ray" / "auth_token"
    if not wanted and environment.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"the token file {path} cannot be read ({error.strerror}). Put the cluster's token there, or set "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
        ) from None
    if not token:
        raise ConfigError(f"the token file {path} is empty. Put the cluster's token there.")
    return token


def _ask_version(url: str, headers: Mapping[str, str], *, has_token: bool) -> str:
    """The version of Ray that the cluster runs."""
    import requests

    try:
        answer = requests.get(f"{url}/api/version", headers=headers, timeout=(CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S))
    except requests.exceptions.InvalidURL:
        raise ConfigError(f"{url} is not a URL. {HOW_TO_NAME}") from None
    except requests.exceptions.SSLError:
        raise ConfigError(f"{url} did not agree on TLS. Use http:// if the dashboard has no certificate.") from None
    except requests.exceptions.RequestException as error:
        raise ConfigError(f"no Ray cluster answers at {url} ({_reason(error)}). {HOW_TO_NAME}") from None
    if answer.status_code == 401 or (answer.status_code == 403 and not has_token):
        raise ConfigError(
            f"the cluster at {url} wants a token and none was given. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
            "(or RAY_AUTH_TOKEN_PATH) to the token that the cluster was started with."
        )
    if answer.status_code == 403:
        raise ConfigError(
            f"the cluster at {url} refused the token. Set RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token that "
            "the cluster was started with; on its head node, `ray get-auth-token` prints it."
        )
    version = _version_in(answer)
    if version is None:
        raise ConfigError(f"what answers at {url} is not Ray's dashboard (HTTP {answer.status_code}). {HOW_TO_NAME}")
    return version


def _version_in(answer: Any) -> str | None:
    if answer.status_code != 200:
        return None
    try:
        return str(answer.json()["ray_version"])
    except (ValueError, KeyError, TypeError):
        return None


def _check_version(cluster: str, url: str) -> None:
    from importlib.metadata import version

    here = version("ray")
    if cluster != here:
        raise ConfigError(
            f"the cluster at {url} runs Ray {cluster}, here is Ray {here}. Use an image with Ray {here} "
            "(cluster/images), or install the cluster's version here."
        )


def _reason(error: Exception) -> str:
    import requests

    text = str(error)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
    if isinstance(error, requests.exceptions.ReadTimeout):
        return f"connected, but no answer within {ANSWER_TIMEOUT_S:.0f} s"
    if "NameResolutionError" in text or "getaddrinfo" in text:
        return "there is no such host"
    if "refused" in text:
        return "connection refused"
    if "Remote end closed" in text or "BadStatusLine" in text or "aborted" in text:
        return "it does not speak HTTP; port 6379 is Ray's own, the dashboard has 8265"
    return type(error).__name__


@contextmanager
def _address_in_environment(url: str) -> Iterator[None]:
    """Ray's client prefers what the environment says to what it is given, so both must say the same."""
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_API_SERVER_ADDRESS"]
        else:
            os.environ["RAY_API_SERVER_ADDRESS"] = before
