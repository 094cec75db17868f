"""Which frames of an archive count: by camera, by the clock, by the time within a video."""

import datetime
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workflows.schema import RECORDED_AT_TYPE
from workflows.scope import Scope


@dataclass(frozen=True)
class FrameFilter:
    """Conditions on a frame, all of which must hold; everything by default.

    A frame without a known time fails every condition on that time.
    """

    cameras: tuple[str, ...] = ()
    """Camera ids; empty means every camera."""
    since_s: float | None = None
    """Earliest time in its video, seconds."""
    until_s: float | None = None
    """Latest time in its video, seconds."""
    since: datetime.datetime | None = None
    """Earliest moment of recording, with its time zone."""
    until: datetime.datetime | None = None
    """Latest moment of recording, with its time zone."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the conditions are on."""
        return tuple(name for name, _, _ in self._ranges()) + (("camera_id",) if self.cameras else ())

    def expression(self) -> pc.Expression | None:
        """The condition for pushdown into Parquet; None when every frame counts."""
        conditions = [pc.field("camera_id").isin(list(self.cameras))] if self.cameras else []
        for name, least, greatest in self._ranges():
            if least is not None:
                conditions.append(pc.field(name) >= _scalar(least))
            if greatest is not None:
                conditions.append(pc.field(name) <= _scalar(greatest))
        if not conditions:
            return None
        whole = conditions[0]
        for condition in conditions[1:]:
            whole = whole & condition
        return whole

    def may_hold(self, scope: Scope | None) -> bool:
        """Whether a part of this scope can have a frame that counts; True where the scope does not tell."""
        if not scope:
            return True
        if self.cameras and "cameras" in scope and not set(self.cameras) & set(scope["cameras"]):
            return False
        return all(_overlaps(scope, name, least, greatest) for name, least, greatest in self._ranges())

    def row_groups(self, parquet: pq.ParquetFile) -> list[int]:
        """The row groups that can have such a frame, by Parquet's statistics in the footer."""
        metadata = parquet.metadata
        place = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
        chosen = []
        for group in range(metadata.num_row_groups):
            scope: dict[str, Any] = {}
            for name in self.columns:
                statistics = metadata.row_group(group).column(place[name]).statistics if name in place else None
                if statistics is None or not statistics.has_min_max:
                    continue
                if name != "camera_id":
                    scope[name] = [statistics.min, statistics.max]
                elif statistics.min == statistics.max:
                    scope["cameras"] = [statistics.min]
            if self.may_hold(scope):
                chosen.append(group)
        return chosen

    def described(self) -> dict[str, Any]:
        """The conditions as JSON can hold them."""
        return {
            "cameras": list(self.cameras),
            "since_s": self.since_s,
            "until_s": self.until_s,
            "since": self.since.isoformat() if self.since else None,
            "until": self.until.isoformat() if self.until else None,
        }

    def _ranges(self) -> list[tuple[str, Any, Any]]:
        """(column, least, greatest) of every time that is limited."""
        ranges = [("timestamp_s", self.since_s, self.until_s), ("recorded_at", self.since, self.until)]
        return [(name, least, greatest) for name, least, greatest in ranges if (least, greatest) != (None, None)]


def _scalar(value: Any) -> Any:
    return pa.scalar(value, RECORDED_AT_TYPE) if isinstance(value, datetime.datetime) else value


def _overlaps(scope: Scope, name: str, least: Any, greatest: Any) -> bool:
    if name not in scope:
        return True
    if scope[name] is None:
        return False
    first, last = (_moment(value) for value in scope[name])
    return (least is None or last >= least) and (greatest is None or first <= greatest)


def _moment(value: Any) -> Any:
    return datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
