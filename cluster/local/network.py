"""Addresses for several Ray nodes on one machine.

`Namespaces` gives each node a network namespace of its own behind a bridge, as separate machines behind a switch would
be: own loopback, own ports, and a cable that can be pulled. It needs root on Linux and `ip`. `Loopback` gives each node
an address of 127.0.0.0/8 and needs nothing; there the nodes share the machine's ports.
"""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["namespaces", "loopback"]
BENCHMARK_RANGE = "198.18"  # RFC 2544: reserved for tests, so no real network is hidden


@dataclass(frozen=True)
class Network:
    """Where the nodes live. `subnet` is the first three numbers of every address; node n has the last number 10 + n."""

    kind: Kind
    subnet: str
    tag: str
    """Short name that this network's devices carry, so that several clusters do not meet."""

    def address(self, node: int) -> str:
        return f"{self.subnet}.{10 + node}"

    def command(self, node: int, words: Sequence[str]) -> list[str]:
        """The command that runs `words` at that node's address."""
        prefix = ["ip", "netns", "exec", self._namespace(node)] if self.kind == "namespaces" else []
        return [*prefix, *words]

    def create(self) -> None:
        """Makes the switch that nodes are plugged into; they reach this machine at its address `.1`, nothing else."""
        if self.kind == "namespaces":
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.subnet}.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")

    def plug_in(self, node: int) -> None:
        """Gives a node its namespace and its cable."""
        if self.kind == "namespaces":
            space, cable = self._namespace(node), self._cable(node)
            _ip("netns", "add", space)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", cable, "master", self._bridge, "up")
            _ip("-n", space, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", space, "link", "set", device, "up")

    def pull_cable(self, node: int) -> None:
        """Cuts a node off, as a lost machine is: nobody gets an answer, not even a refusal."""
        if self.kind == "namespaces":
            _ip("link", "set", self._cable(node), "down")

    def remove(self, nodes: int) -> None:
        """Takes away everything that was made for the first `nodes` nodes; what is gone already is fine."""
        if self.kind == "namespaces":
            for node in range(nodes):
                with contextlib.suppress(RuntimeError):
                    _ip("link", "del", self._cable(node))
                with contextlib.suppress(RuntimeError):
                    _ip("netns", "del", self._namespace(node))
            with contextlib.suppress(RuntimeError):
                _ip("link", "del", self._bridge)

    def stragglers(self, node: int) -> list[int]:
        """Process ids that still run in that node's namespace; none where nodes have no namespace."""
        if self.kind == "namespaces":
            with contextlib.suppress(RuntimeError):
                return [int(word) for word in _ip("netns", "pids", self._namespace(node)).split()]
        return []

    @property
    def _bridge(self) -> str:
        return f"psr{self.tag}"

    def _cable(self, node: int) -> str:
        return f"psr{self.tag}n{node}"

    def _namespace(self, node: int) -> str:
        return f"psreid-{self.tag}-{node}"


def choose_network(kind: Kind | Literal["auto"] = "auto") -> Network:
    """A network that nobody uses yet; `auto` takes namespaces where they are permitted."""
    if kind == "auto":
        kind = "namespaces" if namespaces_are_permitted() else "loopback"
    tag = f"{random.randrange(16**5):05x}"
    if kind == "loopback":
        return Network(kind, f"127.{random.randint(64, 250)}.{random.randint(1, 250)}", tag)
    taken = _ip("-brief", "addr")
    free = [number for number in range(1, 255) if f"{BENCHMARK_RANGE}.{number}." not in taken]
    return Network(kind, f"{BENCHMARK_RANGE}.{random.choice(free)}", tag)


def namespaces_are_permitted() -> bool:
    """Whether this process may make network namespaces and devices."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    probe = Network("namespaces", f"{BENCHMARK_RANGE}.255", f"{random.randrange(16**5):05x}")
    try:
        probe.create()
        probe.plug_in(0)
    except RuntimeError:
        return False
    finally:
        probe.remove(1)
    return True


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
