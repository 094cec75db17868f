"""A cluster as one object: started, looked at from another process, hurt on purpose, and taken away again.

Everything lies in one folder: the token (readable by its owner only), the record `cluster.json`, logs and sessions of
every node. Nothing outside it is touched, and Ray's own `ray stop`, which stops every Ray of the machine, is not used.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from cluster.local.network import Kind, Network, choose_network
from cluster.local.node import START_TIMEOUT_S, Node, launch_node, wait_until_started

RECORD, TOKEN = "cluster.json", "token"
LONGEST_FOLDER = 40  # characters: Ray's socket paths lie below it, and a socket path must stay under 107

# A node whose cable is pulled counts as dead after five checks: here some 20 s, with Ray's own figures over a minute.
QUICK_HEALTH_CHECKS = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000"}


@dataclass(frozen=True)
class LocalCluster:
    """A head and its workers, all on this machine."""

    folder: Path
    network: Network
    ports: Mapping[str, int]
    cpus_per_node: int
    nodes: tuple[Node, ...] = ()
    added: Mapping[str, str] = field(default_factory=dict)
    """Environment of the nodes beyond the caller's; not in the record, since it may hold credentials."""

    @classmethod
    def start(
        cls,
        folder: Path | None = None,
        *,
        workers: int = 2,
        cpus_per_node: int = 1,
        network: Kind | Literal["auto"] = "auto",
        environment: Mapping[str, str] | None = None,
    ) -> "LocalCluster":
        """Starts a head and workers and returns when all have joined. `folder` must have a short path; None makes one.

        The nodes have the caller's environment without its `RAY_*`, and on top of it `environment`.
        RuntimeError if a node does not start; whatever was started is then gone again.
        """
        folder = Path(tempfile.mkdtemp(prefix="psreid-")) if folder is None else folder.absolute()
        if len(str(folder)) > LONGEST_FOLDER:
            raise ValueError(
                f"{folder} is longer than {LONGEST_FOLDER} characters, too long for Ray's sockets below it"
            )
        if (folder / RECORD).exists():
            raise ValueError(f"{folder} holds a cluster already; stop it first")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKEN).touch(mode=0o600)
        (folder / TOKEN).write_text(secrets.token_hex(32))
        ports = {name: _free_port() for name in ("gcs", "dashboard", "client")}
        cluster = cls(folder, choose_network(network), ports, cpus_per_node, added=dict(environment or {}))
        try:
            cluster.network.create()
            for _ in range(1 + workers):
                cluster = cluster._launch()
            for node in cluster.nodes:
                wait_until_started(node)
            cluster._wait_for_dashboard()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def attach(cls, folder: Path) -> "LocalCluster":
        """The cluster that was started in that folder, perhaps by another process."""
        try:
            stored = json.loads((folder / RECORD).read_text())
        except FileNotFoundError:
            raise ValueError(f"no cluster was started in {folder}") from None
        nodes = tuple(Node(**node) for node in stored["nodes"])
        return cls(folder, Network(**stored["network"]), stored["ports"], stored["cpus_per_node"], nodes)

    @property
    def dashboard(self) -> str:
        """URL of the dashboard and of the job API."""
        return f"http://{self.network.address(0)}:{self.ports['dashboard']}"

    @property
    def token(self) -> str:
        return (self.folder / TOKEN).read_text()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment to submit jobs here."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / TOKEN),
            "RAY_API_SERVER_ADDRESS": self.dashboard,
        }

    def add_node(self) -> "LocalCluster":
        """The cluster with one more worker."""
        grown = self._launch()
        wait_until_started(grown.nodes[-1])
        return grown

    def kill_node(self, number: int) -> None:
        """Loses a node as a machine is lost: its cable first, where it has one, then every process at once."""
        self.network.pull_cable(number)
        self._end(self.nodes[number])

    def stop(self, *, keep_logs: bool = False) -> None:
        """Ends every process, takes the network away, and removes the folder."""
        for node in reversed(self.nodes):
            self._end(node)
        self.network.remove(len(self.nodes) + 1)
        (self.folder / RECORD).unlink(missing_ok=True)
        if not keep_logs:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, node: Node) -> None:
        node.kill()
        for pid in self.network.stragglers(node.number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _launch(self) -> "LocalCluster":
        number = len(self.nodes)
        self.network.plug_in(number)
        head = f"{self.network.address(0)}:{self.ports['gcs']}"
        node = launch_node(
            self.network, number, self.folder, head=head, cpus=self.cpus_per_node, ports=self.ports,
            env=self._node_environment(),
        )  # fmt: skip
        grown = replace(self, nodes=(*self.nodes, node))
        grown._write_record()
        if number == 0:
            wait_until_started(node)
        return grown

    def _node_environment(self) -> dict[str, str]:
        """The caller's environment without its own Ray settings; `python` is this one."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return inherited | {
            **self.added,
            "PATH": path,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / TOKEN),
            "RAY_worker_niceness": "0",  # Ray's own 15 starves workers wherever anything else runs
            **QUICK_HEALTH_CHECKS,
        }

    def _write_record(self) -> None:
        record = {
            "network": asdict(self.network),
            "ports": dict(self.ports),
            "cpus_per_node": self.cpus_per_node,
            "nodes": [asdict(node) for node in self.nodes],
        }
        (self.folder / RECORD).write_text(json.dumps(record, indent=1))

    def _wait_for_dashboard(self) -> None:
        request = urllib.request.Request(
            f"{self.dashboard}/api/version", headers={"Authorization": f"Bearer {self.token}"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                opener.open(request, timeout=5).close()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the dashboard {self.dashboard} does not answer: {error}") from error
                time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
