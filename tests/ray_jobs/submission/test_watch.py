"""Watching a job through a connection that breaks, and what its exit code is."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from modeling.errors import JobError
from ray_jobs.submission import watch
from ray_jobs.submission.watch import exit_code_of, watch_job

LOG = ["Running entrypoint\n", "frame 1\n", "frame 2\n"]


class Cluster:
    """A job API that loses the connection after each of the first `breaks` numbers of chunks, then holds."""

    def __init__(self, *breaks: int) -> None:
        self.breaks = list(breaks)

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        upto = self.breaks.pop(0) if self.breaks else len(LOG)
        for text in LOG[:upto]:
            yield text
        if upto < len(LOG):
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_info(self, job_id: str) -> Any:
        return SimpleNamespace(status=JobStatus.SUCCEEDED, driver_exit_code=0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RECONNECT_EVERY_S", 0.0)


@pytest.mark.parametrize("breaks", [(), (0,), (1, 2), (2, 1, 0, 2)])
def test_every_line_is_shown_once(breaks: tuple[int, ...]) -> None:
    shown: list[str] = []
    watch_job(Cluster(*breaks), "job", shown.append)  # type: ignore[arg-type]
    assert "".join(shown) == "".join(LOG)


def test_a_cluster_that_stays_away_ends_the_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RECONNECT_FOR_S", 0.02)
    monkeypatch.setattr(watch, "RECONNECT_EVERY_S", 0.01)
    with pytest.raises(JobError, match="psreid jobs status job"):
        watch_job(Cluster(*[1] * 1000), "job", lambda text: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("raised", [KeyboardInterrupt, BrokenPipeError])
def test_who_watches_may_leave(raised: type[BaseException]) -> None:
    def leave(text: str) -> None:
        raise raised

    with pytest.raises(raised):
        watch_job(Cluster(), "job", leave)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0), (JobStatus.FAILED, 2, 2), (JobStatus.FAILED, -9, 137),
        (JobStatus.FAILED, None, 1), (JobStatus.STOPPED, None, 1), (JobStatus.STOPPED, -15, 1),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_command_s(status: JobStatus, code: int | None, expected: int) -> None:
    assert exit_code_of(SimpleNamespace(status=status, driver_exit_code=code)) == expected  # type: ignore[arg-type]
