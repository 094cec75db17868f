"""Watches one run of a step from its driver: metrics every few seconds, a file beside the output, a line a minute.

`OUT/progress.json` holds the last figures, so that `psreid status` can tell of a run on another machine, or of one that
was killed. A thread writes it: storage that is away delays the figures, never the work.
"""

import datetime
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from modeling.errors import PsreidError
from workflows.ledger import Shard
from workflows.progress import Price, Progress
from workflows.stages import StageSpec
from workflows.storage import Folder
from workflows.watching.figures import Capacity, Committed, StageUse, StepFigures, StepTally
from workflows.watching.metrics import RayMetrics

PROGRESS = "progress.json"
PUBLISH_EVERY_S = 5.0
STORE_EVERY_S = 10.0
SAY_EVERY_S = 60.0
STORE_PATIENCE_S = 5.0  # the next figures are due soon
JOIN_S = 15.0

logger = logging.getLogger(__name__)


class StepWatch:
    """Use as a context around a run; `add` every committed shard. Needs a running Ray."""

    def __init__(
        self,
        folder: Folder,
        step: str,
        shards: Sequence[Shard],
        remaining: Sequence[Shard],
        stages: Sequence[StageSpec],
        progress: Progress,
    ) -> None:
        self._folder = Folder(folder.uri, retry_for_s=STORE_PATIENCE_S)
        self._progress = progress
        self._earlier_s = float(read_progress(folder).get("total_s", 0.0))
        uses = {spec.name: StageUse(spec.resources.cpus, spec.resources.gpus) for spec in stages}
        self._tally = StepTally(
            step,
            shards_total=len(shards),
            shards_done=len(shards) - len(remaining),
            uses=uses,
            capacity=_capacity(progress.price),
            now_s=time.monotonic(),
            earlier_s=self._earlier_s,
        )
        self._metrics = RayMetrics(step, folder.uri)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="psreid-watch", daemon=True)

    def __enter__(self) -> "StepWatch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(JOIN_S)
        figures = self._figures()
        self._publish(figures)
        self._store(figures, state="done" if error is None else "stopped")

    def add(self, row: Mapping[str, Any]) -> None:
        """Counts a shard by the row that its last worker gave."""
        shard = Committed(row["rows"], row["rows_read"], dict(row["reasons"]), row["trail"])
        with self._lock:
            self._tally.add(shard, time.monotonic())
            unit = self._tally.unit
        try:
            self._metrics.add(shard, unit)
        except Exception as error:
            logger.debug("metrics were not counted: %s", error)

    def _run(self) -> None:
        started = time.monotonic()
        stored = said = started
        self._store(self._figures(), state="running")
        while not self._stop.wait(PUBLISH_EVERY_S):
            figures, now = self._figures(), time.monotonic()
            self._publish(figures)
            if now - stored >= STORE_EVERY_S:
                self._store(figures, state="running")
                stored = now
            if now - said >= SAY_EVERY_S:
                self._progress.figures(figures)
                said = now

    def _figures(self) -> StepFigures:
        with self._lock:
            return self._tally.figures(time.monotonic())

    def _publish(self, figures: StepFigures) -> None:
        try:
            self._metrics.publish(figures)
        except Exception as error:  # whatever Ray's exporter has, the work goes on
            logger.debug("metrics were not published: %s", error)

    def _store(self, figures: StepFigures, *, state: str) -> None:
        record = figures.plain() | {
            "state": state,
            "total_s": self._earlier_s + figures.elapsed_s,
            "updated_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        try:
            self._folder.write_json(PROGRESS, record, durable=False)
        except PsreidError as error:
            logger.warning("the figures of %s were not stored: %s", self._folder.uri, error)


def read_progress(folder: Folder) -> dict[str, Any]:
    """What a watch has stored last; empty where there is nothing, or nothing whole."""
    try:
        found = folder.read_json(PROGRESS) if folder.exists(PROGRESS) else {}
    except PsreidError:
        return {}
    return found if isinstance(found, dict) else {}


def _capacity(price: Price | None) -> Capacity:
    import ray

    has = ray.cluster_resources()
    cpus, gpus = float(has.get("CPU", 0.0)), float(has.get("GPU", 0.0))
    return Capacity(cpus, gpus) if price is None else Capacity(cpus, gpus, price.per_hour, price.currency)
