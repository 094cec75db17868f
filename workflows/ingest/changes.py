"""What has become of the files that an archive was made of, and whether an ingest may go on.

New files are added. A file with another date but the same content is the same file. A file that is gone after its
frames were taken stays in the archive: cameras overwrite their footage. A file whose content changed, or that is gone
before its frames were taken, stops the job, because indexes, matches and reports refer to what it was; `changed: keep`
goes on with what there is, and what is lost is set aside in the quarantine.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modeling.errors import ConfigError
from workflows.ingest.config import IngestConfig
from workflows.ingest.payload import files_of, without_files
from workflows.ingest.record import DETECTIONS, KnownFile, Record
from workflows.ingest.sources import SourceFile
from workflows.ingest.video_index import Fault, probe_video
from workflows.ledger import Shard
from workflows.storage import Folder, split_uri

MOST_NAMED = 5  # files in a message


@dataclass(frozen=True)
class Changes:
    """The files of a listing beside those of the record."""

    new: frozenset[str]
    """URIs."""
    differing: Sequence[SourceFile]
    """Known files with another identity, as they are now."""
    vanished: Sequence[str]
    """URIs of known footage that is gone."""


@dataclass(frozen=True)
class Settled:
    """What follows from the changes."""

    touched: Sequence[KnownFile] = ()
    """Files whose date changed and whose content did not, as they are now."""
    lost: Mapping[str, Fault] = field(default_factory=dict)
    """URI -> why the frames that were not taken yet cannot be had any more."""
    done: frozenset[str] = frozenset()
    """Ids of the shards that are committed."""
    notes: Sequence[str] = ()

    def replace_lost(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards, with those that are not done and are of lost files replaced by ones that say so."""
        if not self.lost:
            return list(shards)
        kept: dict[str, Shard] = {}
        for shard in shards:
            for part in [shard] if shard.shard_id in self.done else without_files(shard, self.lost):
                kept[part.shard_id] = part
        return list(kept.values())


def check_sources(record: Record, sources: Sequence[str], out: Folder | None) -> None:
    """ConfigError when a source of an earlier run is not named any more: then this is another archive."""
    given = {Folder(source).uri for source in sources}
    missing = [source for source in record.sources if Folder(source).uri not in given]
    if missing and out is not None:
        raise ConfigError(
            f"{out.uri} holds the frames of {', '.join(missing[:MOST_NAMED])}, which this command does not name. An "
            "archive grows by new files in its sources and by new sources: name the old ones too, or use another "
            "output folder."
        )


def find_changes(record: Record, files: Sequence[SourceFile]) -> Changes:
    """Compares a listing with the record, by URI and identity."""
    now = {file.uri: file for file in files}
    differing = [
        file for uri, file in now.items() if uri in record.files and record.files[uri].file.identity != file.identity
    ]
    vanished = [uri for uri in record.of_kind("video", "image") if uri not in now]
    return Changes(frozenset(now.keys() - record.files.keys()), differing, vanished)


def settle(record: Record, changes: Changes, config: IngestConfig, out: Folder | None) -> Settled:
    """Decides about changed and vanished files; ConfigError where the job may not go on."""
    if out is None or not (changes.differing or changes.vanished):
        return Settled()
    done = frozenset(name.removeprefix("done/").removesuffix(".json") for name in out.list_files("done/"))
    unfinished = {uri for shard in record.shards if shard.shard_id not in done for uri in files_of(shard)}
    contents = [(file, record.files[file.uri], content_of(record.files[file.uri])) for file in changes.differing]
    touched = [
        replace(known, file=replace(known.file, identity=file.identity), content=content)
        for file, known, content in contents
        if content == known.content
    ]
    changed = [file.uri for file, known, content in contents if content != known.content]
    gone = [uri for uri in changes.vanished if uri in unfinished]
    if (changed or gone) and config.changed == "refuse":
        raise ConfigError(_refusal(changed, gone, out))
    lost = {uri: Fault("source_changed", "the file is another one than when it was planned") for uri in changed}
    lost |= {uri: Fault("source_vanished", "the file is gone, its frames had not been taken yet") for uri in gone}
    kept = len(changes.vanished) - len(gone)
    notes = [f"{kept} source files are gone since their frames were taken; the frames stay"] if kept else []
    if changed:
        notes.append(f"{len(changed)} source files changed; the archive keeps the frames it has of them")
    return Settled(touched, lost, done, notes)


def content_of(known: KnownFile) -> str:
    """What is in a known file now, in the terms in which its content was recorded."""
    folder, name = split_uri(known.file.uri)
    if known.kind == DETECTIONS:
        return hashlib.sha256(folder.read_bytes(name)).hexdigest()[:32]
    if known.kind == "image":
        return folder.identity(name)
    probe = probe_video(known.file.uri)
    return probe.index.content if probe.index is not None else "not a video"


def _refusal(changed: Sequence[str], gone: Sequence[str], out: Folder) -> str:
    problems = []
    if changed:
        problems.append(
            f"{len(changed)} source files are not what they were when they were ingested: {_named(changed)}"
        )
    if gone:
        problems.append(f"{len(gone)} source files vanished before all their frames were taken: {_named(gone)}")
    return (
        f"{'; '.join(problems)}. Frames, indexes and matches of {out.uri} refer to them as they were: put them back, "
        "or ingest into another output folder, or go on with what was taken of them by --changed keep (what was not "
        "taken yet is set aside in the quarantine)."
    )


def _named(uris: Sequence[str]) -> str:
    more = f" and {len(uris) - MOST_NAMED} more" if len(uris) > MOST_NAMED else ""
    return ", ".join(sorted(uris)[:MOST_NAMED]) + more
