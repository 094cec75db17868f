"""`psreid tracking`: an MLflow server on this machine, with one folder for its database and files."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field

from modeling.errors import ConfigError, JobError
from workflows.config import StepConfig
from workflows.progress import Plan, Progress, Summary
from workflows.tracking.client import is_healthy

START_WITHIN_S = 120.0
STOP_WITHIN_S = 15.0
LOG_FILE = "server.log"


class ServerConfig(StepConfig):
    """Where the server listens and what it keeps."""

    folder: str = "tracking"
    """Local folder for the database (mlflow.db), the files of runs (artifacts/) and the server's log."""
    port: Annotated[int, Field(ge=1, le=65535)] = 5000
    """TCP port."""
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own lets everybody who reaches it read and change all runs."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that answer; one serves a dozen jobs."""


def serve_tracking(config: ServerConfig, progress: Progress) -> Summary:
    """Runs the server until it is told to stop (Ctrl-C or SIGTERM). Says when it answers, and the address to set."""
    address = _address(config)
    _check_port(config, address)
    folder = Path(config.folder).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with _server(config, folder) as process:
        _wait_until_healthy(process, address, folder)
        progress.say(f"MLflow answers at {address} and keeps everything in {folder}. For other commands:")
        progress.say(f"  export MLFLOW_TRACKING_URI={address}")
        if config.host not in ("127.0.0.1", "localhost", "::1"):
            progress.say(f"  Whoever reaches {config.host}:{config.port} can read and change all runs and models.")
        progress.say("Ctrl-C stops it.")
        code = _wait_for_end(process)
    if code not in (0, -signal.SIGTERM, -signal.SIGINT):
        raise JobError(f"the MLflow server ended with exit code {code}; its last words are in {folder / LOG_FILE}.")
    headline = f"The MLflow server at {address} has stopped; its runs stay in {folder}."
    return Summary(headline, str(folder), {"seconds": round(time.monotonic() - started, 1)})


def plan_tracking(config: ServerConfig) -> Plan:
    """What would be started."""
    folder = Path(config.folder).expanduser().resolve()
    return Plan({"address": _address(config), "folder": str(folder), "command": " ".join(_command(config, folder))})


def _command(config: ServerConfig, folder: Path) -> list[str]:
    return [
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
        "--host", config.host, "--port", str(config.port), "--workers", str(config.workers),
    ]  # fmt: skip


@contextmanager
def _server(config: ServerConfig, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server's process group, which ends with the block."""
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            _command(config, folder), env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for sign, wait_s in ((signal.SIGTERM, STOP_WITHIN_S), (signal.SIGKILL, STOP_WITHIN_S)):
        try:
            os.killpg(process.pid, sign)
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def _wait_until_healthy(process: subprocess.Popen[bytes], address: str, folder: Path) -> None:
    give_up_at = time.monotonic() + START_WITHIN_S
    while not is_healthy(address):
        if process.poll() is not None:
            raise JobError(f"the MLflow server did not start; its last words are in {folder / LOG_FILE}.")
        if time.monotonic() > give_up_at:
            raise JobError(
                f"the MLflow server did not answer at {address} within {START_WITHIN_S:.0f} s; see {folder / LOG_FILE}."
            )
        time.sleep(0.3)


def _wait_for_end(process: subprocess.Popen[bytes]) -> int:
    """The server's exit code; Ctrl-C and SIGTERM end it and count as 0."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_port(config: ServerConfig, address: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            what = "an MLflow server answers there already" if is_healthy(address) else str(error.strerror or error)
            raise ConfigError(
                f"cannot listen on {address}: {what}. Use it, stop it, or choose another --port."
            ) from error


def _address(config: ServerConfig) -> str:
    host = "127.0.0.1" if config.host == "0.0.0.0" else config.host
    return f"http://{host}:{config.port}"
