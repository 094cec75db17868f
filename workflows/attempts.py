"""Who was at work when a process died: a record on storage that outlives the process, kept per run of the driver.

Before a stage touches a shard it writes `attempts/<run>/<shard>.<stage>.<n>`; when the stage is through, the files go.
So a file found at the start of attempt n is the trace of a worker that died. After two deaths the stage goes row by
row, and the file holds the id of the row in flight. A row in flight at two deaths is the one that kills.

Runs do not share records: whoever kills a driver kills its workers with it, and that must never count against a row.
"""

import logging
from collections import Counter
from dataclasses import dataclass

from modeling.errors import StorageError
from workflows.storage import Folder

DEATHS_BEFORE_ISOLATION = 2  # one may be chance (out of memory, a lost node); two of the same shard and stage are not
DEATHS_BEFORE_QUARANTINE = 2  # of one row while it was alone in flight
WHOLE_SHARD = ""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deaths:
    """What earlier attempts of this run at one (shard, stage) left behind."""

    whole_shard: int
    by_row: Counter[str]

    @property
    def total(self) -> int:
        return self.whole_shard + self.by_row.total()

    @property
    def must_isolate(self) -> bool:
        return self.total >= DEATHS_BEFORE_ISOLATION

    @property
    def killers(self) -> frozenset[str]:
        """Rows that were alone in flight at enough deaths to be blamed."""
        return frozenset(row for row, deaths in self.by_row.items() if deaths >= DEATHS_BEFORE_QUARANTINE)


class Attempt:
    """One attempt of a stage at a shard; use `begin`, then `row_in_flight` per row, then `succeed`."""

    def __init__(self, folder: Folder, prefix: str, earlier: list[str]) -> None:
        self._folder, self._prefix, self._earlier = folder, prefix, earlier
        self._name = f"{prefix}{len(earlier) + 1}"

    @classmethod
    def begin(cls, folder: Folder, run_id: str, shard_id: str, stage: str) -> tuple["Attempt", Deaths]:
        """Records that the stage starts on the shard, and tells what died before."""
        prefix = f"attempts/{run_id}/{shard_id}.{stage}."
        earlier = folder.list_files(prefix)
        contents = [folder.read_bytes(name).decode() for name in earlier]
        rows = Counter(content for content in contents if content != WHOLE_SHARD)
        attempt = cls(folder, prefix, earlier)
        attempt.row_in_flight(WHOLE_SHARD)
        return attempt, Deaths(whole_shard=len(contents) - rows.total(), by_row=rows)

    def row_in_flight(self, row_id: str) -> None:
        """Records which row is being worked on alone. Skips fsync: the record must outlive a process, not a disk."""
        self._folder.write_bytes(self._name, row_id.encode(), durable=False)

    def succeed(self) -> None:
        """Removes the traces: the stage is through with this shard."""
        for name in (*self._earlier, self._name):
            self._folder.remove(name)


def clear_attempts(folder: Folder) -> None:
    """Removes every record, of whatever run. Called by the driver that owns the folder, before and after its run."""
    try:
        folder.remove_folder("attempts")
    except StorageError as error:  # records of other runs are never read, so they only take a little space
        logger.warning("the records of attempts were not removed: %s", error)
