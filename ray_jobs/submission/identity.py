"""Names of jobs: the same command with the same settings has the same name, so submitting it twice is seen.

The name does not depend on the code: a job that failed is fixed and submitted again as the next attempt of itself.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ray_jobs.submission.wrapped import WrappedCommand

DIGEST_CHARS = 12
FINISHED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


class Action(Enum):
    """What a submission does, given the jobs that are there."""

    SUBMIT = "submit"
    WATCH = "watch"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Decision:
    """The action, and the job that it concerns."""

    action: Action
    job_id: str
    attempt: int
    """1 for the first."""


def job_name(commands: Sequence[WrappedCommand], working_dir: Path, carried: Iterable[Path]) -> str:
    """`psreid-<verbs>-<digest>`: the digest covers every setting and the content of the files that travel by name."""
    identity = {
        "commands": [[command.verb, command.config.model_dump(mode="json")] for command in commands],
        "files": {path.as_posix(): _digest((working_dir / path).read_bytes()) for path in sorted(carried)},
    }
    verbs = "-".join(command.verb for command in commands)
    return f"psreid-{verbs}-{_digest(json.dumps(identity, sort_keys=True).encode())[:DIGEST_CHARS]}"


def attempt_id(name: str, attempt: int) -> str:
    """The id of an attempt: the name itself, then with -2, -3, ..."""
    return name if attempt == 1 else f"{name}-{attempt}"


def decide(name: str, statuses: Mapping[str, str], *, again: bool) -> Decision:
    """What to do about the job of that name. `statuses` maps the cluster's submission ids to their states.

    A job that waits or runs is watched; one that succeeded is left alone unless `again`; else a new attempt is made.
    """
    attempt = 1
    while attempt_id(name, attempt + 1) in statuses:
        attempt += 1
    latest = attempt_id(name, attempt)
    status = statuses.get(latest)
    if status is None:
        return Decision(Action.SUBMIT, latest, attempt)
    if status not in FINISHED:
        return Decision(Action.WATCH, latest, attempt)
    if status == "SUCCEEDED" and not again:
        return Decision(Action.NOTHING, latest, attempt)
    return Decision(Action.SUBMIT, attempt_id(name, attempt + 1), attempt + 1)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
