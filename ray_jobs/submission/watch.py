"""Watching a job: its log as it is written, through broken connections, until it ends; then its exit code."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modeling.errors import JobError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

RECONNECT_FOR_S = 60.0
RECONNECT_EVERY_S = 2.0
POLL_S = 0.5
SIGNALLED = 128  # a shell's exit code of a process that a signal ended is 128 + the signal

logger = logging.getLogger(__name__)


def watch_job(client: "JobSubmissionClient", job_id: str, write: Callable[[str], Any]) -> "JobDetails":
    """Hands the log to `write` as it comes and returns what became of the job.

    JobError if the cluster stays away; the job may go on then. KeyboardInterrupt passes through and stops only this.
    """
    log = _Log(client, job_id, write)
    lost_since: float | None = None
    while True:
        before = log.shown
        try:
            asyncio.run(log.follow())
            return _wait_for_end(client, job_id)
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever Ray's client and its sockets raise, the answer is to ask again
            now = time.monotonic()
            lost_since = now if lost_since is None or log.shown > before else lost_since
            if now - lost_since > RECONNECT_FOR_S:
                raise JobError(
                    f"the connection to the cluster was lost while watching {job_id} ({type(error).__name__}). The "
                    f"job may go on; `psreid jobs status {job_id}` asks, and submitting it again is harmless."
                ) from None
            logger.info("watching %s: %s; trying again", job_id, error)
            time.sleep(RECONNECT_EVERY_S)


def exit_code_of(job: "JobDetails") -> int:
    """The command's own exit code; 128 + n if signal n ended it; 1 if the job was stopped or has none."""
    status, code = str(job.status.value), job.driver_exit_code
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED" or not code:
        return 1
    return int(code) if code > 0 else SIGNALLED - int(code)


class _Log:
    """A job's log, each character written once, however often the connection breaks."""

    def __init__(self, client: "JobSubmissionClient", job_id: str, write: Callable[[str], Any]) -> None:
        self._client, self._job_id, self._write = client, job_id, write
        self.shown = 0

    async def follow(self) -> None:
        """Writes what comes after what was shown; a new connection starts from the first character again."""
        seen = 0
        async for text in self._client.tail_job_logs(self._job_id):
            seen += len(text)
            if seen > self.shown:
                self._write(text[-(seen - self.shown) :])
                self.shown = seen


def _wait_for_end(client: "JobSubmissionClient", job_id: str) -> "JobDetails":
    while not (job := client.get_job_info(job_id)).status.is_terminal():
        time.sleep(POLL_S)
    return job
