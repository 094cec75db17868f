"""Which source files an output folder has taken in, and the shards they were cut into: what lets an archive grow.

Every run that finds new files adds one entry to `OUT/plan/`: `shards-<n>.parquet`, then `files-<n>.parquet`, which
makes it count. So a file is opened for planning once in the life of an archive, keeps the names of its frames, and is
recognised when it has changed. Entries are never rewritten; of a file named twice, the later entry holds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from workflows.ingest.sources import Kind, SourceFile
from workflows.ledger import Shard
from workflows.storage import Folder

FILES = pa.schema(
    [
        ("uri", pa.string()),
        ("kind", pa.string()),  # "video", "image" or "detections"
        ("camera_id", pa.string()),
        ("stem", pa.string()),
        ("source", pa.string()),
        ("identity", pa.string()),
        ("recorded_at", pa.string()),
        ("content", pa.string()),
        ("is_faulty", pa.bool_()),
    ]
)
SHARDS = pa.schema([("shard_id", pa.string()), ("payload", pa.string()), ("rows_expected", pa.int64())])
DETECTIONS = "detections"


@dataclass(frozen=True)
class KnownFile:
    """A source file as it was when it was planned."""

    file: SourceFile
    content: str
    """Hash of what is in it, where planning read it; else its identity, which is all that is known of it."""
    is_faulty: bool = False
    kind: str = "video"
    """`file.kind`, or "detections"."""


@dataclass(frozen=True)
class Record:
    """Everything taken in so far."""

    files: Mapping[str, KnownFile] = field(default_factory=dict)
    """By URI."""
    shards: Sequence[Shard] = ()
    entries: int = 0

    def of_kind(self, *kinds: str) -> dict[str, KnownFile]:
        return {uri: known for uri, known in self.files.items() if known.kind in kinds}

    @property
    def sources(self) -> list[str]:
        """What the person has named as sources, in order."""
        return list(dict.fromkeys(known.file.source for known in self.of_kind("video", "image").values()))


def read_record(folder: Folder) -> Record:
    """The record below an output folder; an empty one where there is none."""
    files: dict[str, KnownFile] = {}
    shards: list[Shard] = []
    names = [name for name in folder.list_files("plan/files-") if name.endswith(".parquet")]
    for name in names:
        for row in folder.read_table(name).to_pylist():
            files[row["uri"]] = _known_file(row)
        table = folder.read_table(name.replace("files-", "shards-"))
        shards += [
            Shard(row["shard_id"], json.loads(row["payload"]), row["rows_expected"]) for row in table.to_pylist()
        ]
    return Record(files, shards, len(names))


def add_to_record(folder: Folder, record: Record, files: Sequence[KnownFile], shards: Sequence[Shard]) -> None:
    """Writes an entry, unless it is empty. To be called by the driver that holds the folder's lock."""
    if not files:
        return
    number = f"{record.entries + 1:06d}"
    rows = [
        {"shard_id": shard.shard_id, "payload": json.dumps(shard.payload), "rows_expected": shard.rows_expected}
        for shard in shards
    ]
    folder.write_table(f"plan/shards-{number}.parquet", pa.Table.from_pylist(rows, SHARDS))
    listed = [
        vars(known.file) | {"kind": known.kind, "content": known.content, "is_faulty": known.is_faulty}
        for known in files
    ]
    folder.write_table(f"plan/files-{number}.parquet", pa.Table.from_pylist(listed, FILES))


def grown(record: Record, files: Sequence[KnownFile], shards: Sequence[Shard]) -> Record:
    """The record with another entry."""
    named = {known.file.uri: known for known in files}
    return Record({**record.files, **named}, [*record.shards, *shards], record.entries + 1)


def _known_file(row: dict) -> KnownFile:
    names = ("uri", "camera_id", "stem", "source", "identity", "recorded_at")
    kind: Kind = "image" if row["kind"] == "image" else "video"
    file = SourceFile(kind=kind, **{name: row[name] for name in names})
    return KnownFile(file, row["content"], row["is_faulty"], row["kind"])
