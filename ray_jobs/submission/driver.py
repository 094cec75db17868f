"""What a job runs on the cluster: `python -m ray_jobs.submission.driver -- ingest ... -- index ...`.

Packages, nodes and storage are checked before anything starts, so that what cannot work says so within seconds, in one
line, with exit code 2. The modules imported at the top need nothing but Python, because a package may be missing.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray_jobs.submission.versions import ADVICE, differences

JOB_FILE = "psreid-job.json"  # in the package that travels
STORAGE_PATIENCE_S = 6.0
BAD_INPUT = 2


def main(words: Sequence[str]) -> int:
    """Checks, then runs the commands one after the other; the exit code of the first that fails, or 0."""
    job = json.loads(Path(JOB_FILE).read_text())
    problems = differences(job["versions"], job["requirements"], where="on the cluster")
    if problems:
        return _refuse(f"the cluster's packages do not fit: {'; '.join(problems)}. {ADVICE}")
    from modeling.errors import PsreidError

    try:
        commands = _commands(words)
        _check_places(commands, job)
    except PsreidError as error:
        return _refuse(str(error))
    from ray_jobs.cli import main as run_command_line

    for command in commands:
        exit_code = run_command_line(command.words)
        if exit_code:
            return exit_code
    return 0


def _commands(words: Sequence[str]) -> list[Any]:
    from ray_jobs.submission.wrapped import read_commands

    return read_commands(words[1:] if words[:1] == ["--"] else words)


def _check_places(commands: Sequence[Any], job: dict[str, Any]) -> None:
    """StorageError or ConfigError for a bucket that does not answer, a node that lacks a package or a shared disk."""
    from modeling.errors import ConfigError
    from ray_jobs.submission.node_check import check_nodes, nearest_existing
    from ray_jobs.submission.wrapped import shared_paths
    from workflows.ray_cluster import ensure_ray
    from workflows.storage import Folder

    first_of_bucket: dict[str, str] = {}
    for place in (place for command in commands for place in command.remote_places):
        first_of_bucket.setdefault(place.split("/")[2], place)
    for place in first_of_bucket.values():
        Folder(place, retry_for_s=STORAGE_PATIENCE_S).exists("step.json")
    if any("--debug" in command.words for command in commands):
        os.environ["PSREID_DEBUG"] = "1"
    ensure_ray()
    paths = [nearest_existing(path) for path in shared_paths(commands)]
    problems = check_nodes(job["versions"], job["requirements"], list(dict.fromkeys(paths)))
    if problems:
        advice = "Mount the same disk everywhere, or use s3://" if "there is no" in problems[0] else ADVICE
        raise ConfigError(f"not every node of the cluster can take part: {'; '.join(problems[:4])}. {advice}")


def _refuse(message: str) -> int:
    print(f"psreid: error: {message}", file=sys.stderr, flush=True)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
