"""A bounded queue with one thread that sends: whoever puts something in never waits and never fails.

While the server is away the thread tries again, ever more slowly, and the queue fills; past its limits the oldest
points go first, and are counted. What the server refuses for good is counted with the first reason.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workflows.tracking.operations import Operation, Points, Sender

MOST_POINTS = 200_000  # waiting; about 20 MB
MOST_OPERATIONS = 5_000  # waiting, besides points
POINTS_TOGETHER = 500  # of one run, sent in one call
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 20.0
WAIT_WHILE_CLOSING_S = 1.0
TRIES_WHILE_HEALTHY = 4  # of one operation, when the server answers everything else

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """How the sending went."""

    sent: int = 0
    """Operations that the server has."""
    lost_points: int = 0
    """Points given up because too many were waiting."""
    refused: int = 0
    """Operations that the server refused for good."""
    reason: str = ""
    """What the server said to the first of them, or why it cannot be reached."""
    away_s: float = 0.0
    """Seconds in which the server did not answer, summed."""
    unsent: Sequence[Operation] = ()
    """What was still waiting at the end."""


class Outbox:
    """Sends operations in their order, in a thread."""

    def __init__(
        self,
        connect: Callable[[], Sender],
        *,
        is_outage: Callable[[Exception], bool],
        is_healthy: Callable[[], bool],
        most_points: int = MOST_POINTS,
    ) -> None:
        """`connect` is called in the thread, where importing the client delays nobody."""
        self._connect, self._is_outage, self._is_healthy = connect, is_outage, is_healthy
        self._most_points = most_points
        self._waiting: deque[Operation] = deque()
        self._num_points = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._give_up_at = float("inf")
        self._sent = self._lost_points = self._refused = 0
        self._reason = ""
        self._away_s = 0.0
        self._thread = threading.Thread(target=self._work, name="psreid-tracking", daemon=True)
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """Takes an operation; returns at once."""
        with self._changed:
            if isinstance(operation, Points):
                self._put_points(operation)
            elif len(self._waiting) < MOST_OPERATIONS:
                self._waiting.append(operation)
            else:
                self._refuse("too many operations were waiting for the server")
            self._changed.notify_all()

    def flush(self, wait_s: float) -> bool:
        """Waits until everything is sent, `wait_s` at most, and says whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, wait_s)

    def close(self, wait_s: float) -> Delivery:
        """Sends what is left for up to `wait_s`, stops, and tells how it went."""
        with self._changed:
            self._is_closing, self._give_up_at = True, time.monotonic() + wait_s
            self._changed.notify_all()
        self._thread.join(wait_s + 1)
        with self._changed:
            return Delivery(
                self._sent, self._lost_points, self._refused, self._reason, self._away_s, tuple(self._waiting)
            )

    def _put_points(self, new: Points) -> None:
        """Joins points of one run; drops the oldest when there are too many. The first in line may be on its way."""
        last = self._waiting[-1] if len(self._waiting) > 1 else None
        if isinstance(last, Points) and last.key == new.key and len(last.points) < POINTS_TOGETHER:
            last.points.extend(new.points)
        else:
            self._waiting.append(Points(new.key, list(new.points)))
        self._num_points += len(new.points)
        while self._num_points > self._most_points:
            oldest = next((one for one in list(self._waiting)[1:] if isinstance(one, Points)), None)
            if oldest is None:
                return
            self._waiting.remove(oldest)
            self._num_points -= len(oldest.points)
            self._lost_points += len(oldest.points)

    def _work(self) -> None:
        sender: Sender | None = None
        wait_s, tries = FIRST_WAIT_S, 0
        while (operation := self._next()) is not None:
            started = time.monotonic()
            try:
                sender = sender or self._connect()
                operation.send(sender)
            except Exception as error:
                if self._is_outage(error) and (not self._is_healthy() or tries < TRIES_WHILE_HEALTHY):
                    tries += self._is_healthy()
                    logger.debug("tracking: %s; trying again in %.1f s", error, wait_s)
                    if not self._wait(wait_s, started, error):
                        return
                    wait_s = min(LONGEST_WAIT_S, wait_s * 2)
                    continue
                self._done(operation, error)
            else:
                self._done(operation, None)
            wait_s, tries = FIRST_WAIT_S, 0

    def _next(self) -> Operation | None:
        """The first in line, which stays there until it is done; None when the outbox is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            return self._waiting[0] if self._waiting and time.monotonic() < self._give_up_at else None

    def _wait(self, wait_s: float, started: float, error: Exception) -> bool:
        """Waits before the next try; False when the outbox was closed and its time is up."""
        with self._changed:
            was_closing = self._is_closing
            left_s = max(0.0, self._give_up_at - time.monotonic())
            asked_s = min(wait_s, WAIT_WHILE_CLOSING_S) if was_closing else wait_s
            self._changed.wait_for(lambda: self._is_closing != was_closing, min(asked_s, left_s))
            self._away_s += time.monotonic() - started
            if time.monotonic() < self._give_up_at:
                return True
            self._reason = self._reason or first_line(error)
            return False

    def _done(self, operation: Operation, error: Exception | None) -> None:
        with self._changed:
            self._waiting.popleft()
            self._num_points -= len(operation.points) if isinstance(operation, Points) else 0
            if error is None:
                self._sent += 1
            else:
                self._refuse(first_line(error))
            self._changed.notify_all()

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        self._reason = self._reason or reason
        logger.warning("tracking refused something: %s", reason)


def first_line(error: BaseException) -> str:
    """The error's class and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
