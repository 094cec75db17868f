"""One Ray node as a process tree of its own: `ray start --block` and everything that it starts."""

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.local.network import Network

START_TIMEOUT_S = 120.0
STARTED = "Ray runtime started"  # in the log of `ray start`
OBJECT_STORE_BYTES = 100 << 20


@dataclass(frozen=True)
class Node:
    """A node that was started; it may have died since."""

    number: int
    """0 is the head."""
    address: str
    pid: int
    started: float
    """Seconds since the epoch, as the system tells it: a process id may be reused, the pair may not."""
    log: str

    @property
    def name(self) -> str:
        return f"worker-{self.number}" if self.number else "head"

    @property
    def is_alive(self) -> bool:
        return self._process() is not None

    def kill(self) -> None:
        """SIGKILL to the whole tree at once; nothing gets to say goodbye."""
        process = self._process()
        if process is None:
            return
        tree = [process, *process.children(recursive=True)]
        for member in tree:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(tree, timeout=10)

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            alive = abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


def launch_node(
    network: Network, number: int, folder: Path, *, head: str, cpus: int, ports: Mapping[str, int], env: dict[str, str]
) -> Node:
    """Starts a node and returns at once; `head` is "address:port" of the cluster's store of state."""
    address = network.address(number)
    words = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
        "--node-ip-address", address, "--temp-dir", str(folder / str(number)), "--num-cpus", str(cpus),
        "--num-gpus", "0", "--object-store-memory", str(OBJECT_STORE_BYTES), "--dashboard-agent-listen-port", "0",
    ]  # fmt: skip
    if number:
        words += ["--address", head]
    else:
        words += ["--head", "--port", head.rpartition(":")[2], "--ray-client-server-port", str(ports["client"])]
        words += ["--dashboard-host", address, "--dashboard-port", str(ports["dashboard"])]
    log = folder / f"node-{number}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            network.command(number, words),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=env,
            start_new_session=True,
        )
    return Node(number, address, process.pid, psutil.Process(process.pid).create_time(), str(log))


def wait_until_started(node: Node) -> None:
    """Returns when the node has joined its cluster; RuntimeError with the end of its log if it does not."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while STARTED not in (text := Path(node.log).read_text(errors="replace")):
        if not node.is_alive or time.monotonic() > deadline:
            raise RuntimeError(f"{node.name} did not start; the end of {node.log}: {text[-2000:]}")
        time.sleep(0.2)
