"""From sources to shards: files are listed, new ones are opened once, their frames are chosen and cut.

Reading a video's packets takes about 40 us a frame and all of the file's bytes, so files are read side by side, and
what was found is kept in the output folder (`workflows/ingest/record.py`): a rerun over a grown archive opens the new
files only. A file that is another one than at an earlier run stops the job (`changes.py`).
"""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby

from workflows.annotate.mot import list_detection_files
from workflows.clock import Clock
from workflows.ingest.changes import check_sources, content_of, find_changes, settle
from workflows.ingest.config import IngestConfig
from workflows.ingest.payload import faulty_shard, image_shard, video_shard
from workflows.ingest.record import DETECTIONS, KnownFile, Record, add_to_record, grown, read_record
from workflows.ingest.sources import SourceFile, list_sources
from workflows.ingest.split import cut_shards, sample_frames
from workflows.ingest.video_index import probe_video
from workflows.ledger import Shard
from workflows.progress import Progress
from workflows.storage import Folder

PROBES_PER_CORE = 4  # reading waits for storage more than it computes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestPlan:
    """What an ingest has to do."""

    shards: Sequence[Shard]
    num_videos: int
    num_images: int
    num_faulty: int
    """Files with something wrong; some of them still give frames."""
    num_without_clock: int
    """Files of which nothing tells when they were recorded."""
    num_new_files: int = 0
    """Files that no earlier run has taken in."""
    opened_share: float = 1.0
    """Of the new files' bytes, the part in files that were opened; below 1 in the plan of a dry run only."""
    notes: Sequence[str] = field(default_factory=list)
    """What the person should know of files that changed or vanished."""
    record: Record = field(default_factory=Record)
    """What the output folder had taken in before."""
    entry: tuple[Sequence[KnownFile], Sequence[Shard]] = ((), ())
    """What this plan adds to it: files and shards."""

    @property
    def num_frames(self) -> int:
        return sum(shard.rows_expected or 0 for shard in self.shards)


def make_plan(
    config: IngestConfig, progress: Progress, *, out: Folder | None = None, most_opened: int | None = None
) -> IngestPlan:
    """The plan for these sources: what `out` has taken in already, and what is new. Writes nothing.

    `most_opened`: of more new files than these, as many are opened, evenly spread, and the plan is of them. Raises
    ConfigError or DataError when the sources no longer hold what was taken in.
    """
    record = read_record(out) if out is not None else Record()
    footage = record.of_kind("video", "image")
    check_sources(record, config.sources, out)
    files = list_sources(config.sources, {uri: known.file for uri, known in footage.items()})
    detections = _list_detections(config)
    changes = find_changes(record, [*files, *detections])
    settled = settle(record, changes, config, out)
    unknown = [file for file in files if file.uri in changes.new]
    opened = unknown if most_opened is None else unknown[:: max(1, -(-len(unknown) // most_opened))]
    new, shards = _take_in(opened, config, progress)
    listed = [KnownFile(file, "", kind=DETECTIONS) for file in detections if file.uri in changes.new]
    entry = [*new, *(replace(known, content=content_of(known)) for known in listed), *settled.touched]
    after = grown(record, entry, shards)
    footage = after.of_kind("video", "image")
    kinds = Counter(known.kind for known in footage.values())
    return IngestPlan(
        shards=settled.replace_lost(after.shards),
        num_videos=kinds["video"],
        num_images=kinds["image"],
        num_faulty=sum(known.is_faulty for known in footage.values()),
        num_without_clock=sum(known.file.recorded_at is None for known in footage.values()),
        num_new_files=len(unknown),
        opened_share=_bytes_of(opened) / max(_bytes_of(unknown), 1) if len(opened) < len(unknown) else 1.0,
        notes=settled.notes,
        record=record,
        entry=(entry, shards),
    )


def _bytes_of(files: Sequence[SourceFile]) -> int:
    """Their size; an identity begins with it."""
    return sum(int(file.identity.partition("-")[0]) for file in files)


def keep_plan(plan: IngestPlan, out: Folder) -> None:
    """Adds what is new in the plan to the record of `out`; the caller holds its lock since before the plan was made."""
    add_to_record(out, plan.record, *plan.entry)


def _take_in(
    files: Sequence[SourceFile], config: IngestConfig, progress: Progress
) -> tuple[list[KnownFile], list[Shard]]:
    """New files, and the shards they give."""
    clock = Clock.of(config.start_times, config.time_zone)
    videos = [file for file in files if file.kind == "video"]
    images = [_dated(file, clock) for file in files if file.kind == "image"]
    known: list[KnownFile] = []
    shards: list[Shard] = []
    progress.start("reading packet tables", total=len(videos), unit="video")
    with ThreadPoolExecutor(PROBES_PER_CORE * (os.cpu_count() or 1)) as pool:
        for video, own in pool.map(lambda file: _plan_video(file, config, clock), videos):
            known.append(video)
            shards += own
            progress.advance(rows=sum(shard.rows_expected or 0 for shard in own))
    progress.finish()
    known += [KnownFile(file, file.identity, kind="image") for file in images]
    return known, shards + _plan_images(images, config)


def _plan_video(file: SourceFile, config: IngestConfig, clock: Clock) -> tuple[KnownFile, list[Shard]]:
    probe = probe_video(file.uri)
    file = _dated(file, clock, probe.creation_time)
    shards = [faulty_shard(file, probe.faults)] if probe.faults else []
    for fault in probe.faults:
        logger.warning("%s: %s: %s", file.uri, fault.reason, fault.detail)
    if probe.index is None:
        return KnownFile(file, shards[0].shard_id, is_faulty=True), shards
    wanted = sample_frames(probe.index, every=config.every, fps=config.exact_fps)
    keep_gops_whole = not config.detector.needs_pixels
    cuts = cut_shards(probe.index, wanted, shard_frames=config.shard_frames, keep_gops_whole=keep_gops_whole)
    shards += [video_shard(file, runs, content=probe.index.content) for runs in cuts]
    return KnownFile(file, probe.index.content, is_faulty=bool(probe.faults)), shards


def _dated(file: SourceFile, clock: Clock, creation_time: str | None = None) -> SourceFile:
    start = clock.start_of(file.uri, creation_time)
    return replace(file, recorded_at=start.isoformat() if start else None)


def _plan_images(images: Sequence[SourceFile], config: IngestConfig) -> list[Shard]:
    size = config.shard_frames
    shards = []
    for _, group in groupby(images, key=lambda file: file.uri.rpartition("/")[0]):
        folder = list(group)
        shards += [image_shard(folder[start : start + size]) for start in range(0, len(folder), size)]
    return shards


def _list_detections(config: IngestConfig) -> list[SourceFile]:
    if config.detector.detections is None:
        return []
    folder, names = list_detection_files(config.detector.detections)
    return [SourceFile(folder.path(name), "video", "", name, folder.uri, folder.identity(name)) for name in names]
