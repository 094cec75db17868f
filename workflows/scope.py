"""What a part is about, small enough to stand in a marker and in the manifest: its cameras and its times.

A reader who wants one camera or one night decides from the manifest which parts to open at all; within a part, the
statistics of Parquet then tell which row groups to read.
"""

import datetime
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MOST_CAMERAS = 8  # named; a part with more is about "any camera"
TIME_COLUMNS = ("timestamp_s", "recorded_at")

Scope = Mapping[str, Any]
"""`cameras`: names; `timestamp_s`, `recorded_at`: [least, greatest] (seconds; ISO 8601 in UTC), null where the part has
no value at all. A key that is absent says nothing."""


def scope_of(table: pa.Table) -> dict[str, Any] | None:
    """The scope of a table's rows; None where it has neither cameras nor times, or no row."""
    if not table.num_rows:
        return None
    scope: dict[str, Any] = {}
    if "camera_id" in table.column_names:
        cameras = pc.unique(table["camera_id"])
        if len(cameras) <= MOST_CAMERAS:
            scope["cameras"] = sorted(camera for camera in cameras.to_pylist() if camera is not None)
    for name in TIME_COLUMNS:
        if name in table.column_names:
            extremes = pc.min_max(table[name]).as_py()
            scope[name] = None if extremes["min"] is None else [_plain(extremes["min"]), _plain(extremes["max"])]
    return scope or None


def _plain(value: Any) -> Any:
    return value.astimezone(datetime.UTC).isoformat() if isinstance(value, datetime.datetime) else value
