"""`python -m cluster.local start | status | kill N | stop`: a Ray cluster of several nodes on this machine."""

import argparse
import sys
import tempfile
from pathlib import Path

from cluster.local.local_cluster import LocalCluster

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "psreid-local"


def main() -> int:
    """Runs one verb; exit code 0 done, 1 failed, 2 wrong use."""
    options = _parser().parse_args()
    try:
        if options.verb == "start":
            _start(options)
        else:
            cluster = LocalCluster.attach(options.folder)
            {"status": _status, "kill": _kill, "stop": _stop}[options.verb](cluster, options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _start(options: argparse.Namespace) -> None:
    cluster = LocalCluster.start(
        options.folder, workers=options.workers, cpus_per_node=options.cpus, network=options.network
    )
    _status(cluster, options)
    print("\nTo submit jobs to it:")
    for name, value in cluster.environment.items():
        print(f"export {name}={value}")


def _status(cluster: LocalCluster, _: argparse.Namespace) -> None:
    print(f"network: {cluster.network.kind}, dashboard and jobs: {cluster.dashboard}")
    for node in cluster.nodes:
        print(f"{node.number}  {node.name:<10} {node.address:<15} {'alive' if node.is_alive else 'dead'}")


def _kill(cluster: LocalCluster, options: argparse.Namespace) -> None:
    if not 0 <= options.node < len(cluster.nodes):
        raise ValueError(f"there is no node {options.node}; the nodes are 0 to {len(cluster.nodes) - 1}")
    cluster.kill_node(options.node)
    print(f"{cluster.nodes[options.node].name} is gone.")


def _stop(cluster: LocalCluster, _: argparse.Namespace) -> None:
    cluster.stop()
    print(f"{len(cluster.nodes)} nodes stopped, {cluster.folder} removed.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.local", description=__doc__)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help=f"default: {DEFAULT_FOLDER}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="start a head and workers")
    start.add_argument("--workers", type=int, default=2)
    start.add_argument("--cpus", type=int, default=1, help="cores that each node offers (default: 1)")
    start.add_argument("--network", choices=("auto", "namespaces", "loopback"), default="auto")
    verbs.add_parser("status", help="which nodes live")
    kill = verbs.add_parser("kill", help="lose a node, as a machine is lost")
    kill.add_argument("node", type=int, help="0 is the head")
    verbs.add_parser("stop", help="end every node and remove the folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
