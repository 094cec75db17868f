"""`psreid` and `python -m ray_jobs`."""

import sys

from ray_jobs.cli import main as run_command_line
from workflows import ray_cluster


def main() -> None:
    """The console script: runs the command line and exits with its code."""
    ray_cluster.process_is_command = True
    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
