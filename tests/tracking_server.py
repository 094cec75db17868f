"""A real MLflow server in a process of its own that a test may kill and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from workflows.tracking.client import connect_client, is_healthy

START_WITHIN_S = 120.0


class TrackingServer:
    """`psreid tracking` on a free port; what it stores outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        command = [sys.executable, "-m", "ray_jobs", "tracking", "--port", str(self.port), "--folder", str(self.folder)]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "said.txt").open("ab") as said:
            self._process = subprocess.Popen(
                command, stdout=said, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"}, preexec_fn=_heed_sigint
            )
        give_up_at = time.monotonic() + START_WITHIN_S
        while not is_healthy(self.uri):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"the MLflow server did not start: {(self.folder / 'said.txt').read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> int:
        """Ends it as Ctrl-C would, and gives its exit code."""
        assert self._process is not None, "started before"
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(60)
        self._process = None
        return code

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def client(self) -> Any:
        """An MLflow client of it."""
        return connect_client(self.uri)


def _heed_sigint() -> None:
    """A test run that a shell put into the background ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
