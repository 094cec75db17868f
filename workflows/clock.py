"""When a video was recorded: from a table, from its file name, or from what its container says; null otherwise.

A file name counts where it holds a whole date and time of day: `gate_20261101_080000.mp4`, `2026-11-01T08-00-00Z.mkv`,
`cam3-2026.11.01 08.00.mp4`. A time without an offset is in the time zone of the settings. A container's creation time
is in UTC by its standard, but it is the time of the last copy where footage was converted, so the name comes first.
"""

import csv
import datetime
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from modeling.errors import ConfigError, DataError
from workflows.storage import split_uri

FIRST_YEAR = 2000  # clocks that were never set say 1904 or 1970
RULES = ("auto", "name", "container", "none")
EDGE = r"(?:(?<=\D)|^)"
IN_NAME = (
    re.compile(EDGE + r"(20\d\d)(\d\d)(\d\d)[T_\-. ]?(\d\d)(\d\d)(\d\d)(?:\.?\d{3})?(?!\d)(Z)?"),
    re.compile(EDGE + r"(20\d\d)[-._](\d\d)[-._](\d\d)[T_\-. ](\d\d)[-._:h](\d\d)(?:[-._:m](\d\d))?(?!\d)(Z)?"),
)


@dataclass(frozen=True)
class Clock:
    """The rule by which an ingest tells when its videos start."""

    rule: str
    """One of RULES; with a table, that alone counts."""
    zone: ZoneInfo
    """Of times that are written without an offset."""
    table: Mapping[str, datetime.datetime] | None = None
    """File name, with as many of its folders as tell it apart -> start."""

    @classmethod
    def of(cls, start_times: str, time_zone: str) -> "Clock":
        """The rule that the settings name; ConfigError or DataError where they cannot be used."""
        try:
            zone = ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ConfigError(
                f"time_zone {time_zone!r} is not known here. Give an IANA name such as UTC or Europe/Berlin."
            ) from error
        if start_times in RULES:
            return cls(start_times, zone)
        return cls("table", zone, _read_table(start_times, zone))

    def start_of(self, uri: str, creation_time: str | None = None) -> datetime.datetime | None:
        """When the video's first frame (or the image) was recorded, in UTC; None where nothing tells."""
        if self.table is not None:
            return self._from_table(uri)
        if self.rule in ("auto", "name") and (found := _from_name(uri.rpartition("/")[2], self.zone)):
            return found
        if self.rule in ("auto", "container") and creation_time:
            return _parse(creation_time, self.zone)
        return None

    def _from_table(self, uri: str) -> datetime.datetime | None:
        assert self.table is not None
        parts = uri.split("/")
        names = ("/".join(parts[-count:]) for count in range(len(parts), 0, -1))
        return next((self.table[name] for name in names if name in self.table), None)


def parse_moment(text: str, zone: ZoneInfo) -> datetime.datetime:
    """A moment written in ISO 8601, in UTC; one without an offset is in `zone`. ConfigError where it is none."""
    found = _parse(text, zone)
    if found is None:
        raise ConfigError(f"{text!r} is not a moment such as 2026-11-01T08:00 or 2026-11-01T08:00:00+01:00.")
    return found


def _from_name(name: str, zone: ZoneInfo) -> datetime.datetime | None:
    for pattern in IN_NAME:
        for match in pattern.finditer(name):
            *numbers, is_utc = match.groups()
            try:
                local = datetime.datetime(*(int(number or 0) for number in numbers))  # type: ignore[arg-type]
            except ValueError:  # digits that are no time
                continue
            return local.replace(tzinfo=datetime.UTC if is_utc else zone).astimezone(datetime.UTC)
    return None


def _parse(text: str, zone: ZoneInfo) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.year < FIRST_YEAR:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(datetime.UTC)


def _read_table(uri: str, zone: ZoneInfo) -> dict[str, datetime.datetime]:
    """A CSV file with the columns `file` and `start`."""
    folder, name = split_uri(uri)
    if not folder.exists(name):
        raise ConfigError(
            f"start_times {uri!r} is neither a rule ({', '.join(RULES)}) nor a file. Give a rule, or a CSV file with "
            "the columns file and start."
        )
    rows = csv.DictReader(io.StringIO(folder.read_bytes(name).decode("utf-8-sig", "replace")))
    if not {"file", "start"} <= set(rows.fieldnames or ()):
        raise DataError(f"{uri} needs the columns file and start, got {', '.join(rows.fieldnames or ['nothing'])}.")
    starts = {}
    for number, row in enumerate(rows, start=2):
        moment = _parse(row["start"] or "", zone)
        if moment is None:
            raise DataError(f"{uri}, line {number}: {row['start']!r} is not a moment such as 2026-11-01T08:00:00.")
        starts[(row["file"] or "").strip().lstrip("./")] = moment
    return starts
