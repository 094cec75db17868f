"""From sources to shards: every file is listed, every video's packets are read once, frames are chosen and cut.

Reading packets takes about 40 us a frame and all of the file's bytes, so files are read side by side, and the result
is kept in the output folder under `plan/`: a rerun over unchanged files reads none of them.
"""

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from workflows.ingest.config import IngestConfig
from workflows.ingest.payload import DECODER_VERSION, faulty_shard, image_shard, video_shard
from workflows.ingest.sources import SourceFile, list_sources
from workflows.ingest.split import cut_shards, sample_frames
from workflows.ingest.video_index import probe_video
from workflows.ledger import Shard, make_shard_id
from workflows.progress import Progress
from workflows.storage import Folder

PROBES_PER_CORE = 4  # reading waits for storage more than it computes
PLAN = pa.schema([("shard_id", pa.string()), ("payload", pa.string()), ("rows_expected", pa.int64())])

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestPlan:
    """What an ingest has to do."""

    shards: Sequence[Shard]
    inputs: dict[str, str]
    """Source -> hash of its files' names and contents."""
    num_videos: int
    num_images: int
    num_faulty: int
    """Files with something wrong; some of them still give frames."""

    @property
    def num_frames(self) -> int:
        return sum(shard.rows_expected or 0 for shard in self.shards)


@dataclass(frozen=True)
class _PlannedVideo:
    shards: Sequence[Shard]
    content: str
    is_faulty: bool


def make_plan(config: IngestConfig, progress: Progress, *, cache: Folder | None = None) -> IngestPlan:
    """The plan for these sources, from `cache` if they have not changed since it was stored there."""
    files = list_sources(config.sources)
    key = _cache_key(files, config)
    if cache is not None and cache.exists(f"{key}.parquet"):
        return _read_plan(cache, key)
    plan = _plan_files(files, config, progress)
    if cache is not None:
        _write_plan(cache, key, plan)
    return plan


def _plan_files(files: Sequence[SourceFile], config: IngestConfig, progress: Progress) -> IngestPlan:
    videos = [file for file in files if file.kind == "video"]
    images = [file for file in files if file.kind == "image"]
    progress.start("reading packet tables", total=len(videos), unit="video")
    planned = []
    with ThreadPoolExecutor(PROBES_PER_CORE * (os.cpu_count() or 1)) as pool:
        for video in pool.map(lambda file: _plan_video(file, config), videos):
            planned.append(video)
            progress.advance(rows=sum(shard.rows_expected or 0 for shard in video.shards))
    progress.finish()
    contents = {file.uri: video.content for file, video in zip(videos, planned, strict=True)}
    return IngestPlan(
        shards=[shard for video in planned for shard in video.shards] + _plan_images(images, config),
        inputs=_hash_inputs(files, contents),
        num_videos=len(videos),
        num_images=len(images),
        num_faulty=sum(video.is_faulty for video in planned),
    )


def _plan_video(file: SourceFile, config: IngestConfig) -> _PlannedVideo:
    probe = probe_video(file.uri)
    shards = [faulty_shard(file, probe.faults)] if probe.faults else []
    for fault in probe.faults:
        logger.warning("%s: %s: %s", file.uri, fault.reason, fault.detail)
    if probe.index is None:
        return _PlannedVideo(shards, shards[0].shard_id, is_faulty=True)
    wanted = sample_frames(probe.index, every=config.every, fps=config.exact_fps)
    keep_gops_whole = not config.detector.needs_pixels
    cuts = cut_shards(probe.index, wanted, shard_frames=config.shard_frames, keep_gops_whole=keep_gops_whole)
    shards += [video_shard(file, runs, content=probe.index.content) for runs in cuts]
    return _PlannedVideo(shards, probe.index.content, is_faulty=bool(probe.faults))


def _plan_images(images: Sequence[SourceFile], config: IngestConfig) -> list[Shard]:
    size = config.shard_frames
    shards = []
    for _, group in groupby(images, key=lambda file: file.uri.rpartition("/")[0]):
        folder = list(group)
        shards += [image_shard(folder[start : start + size]) for start in range(0, len(folder), size)]
    return shards


def _hash_inputs(files: Sequence[SourceFile], contents: dict[str, str]) -> dict[str, str]:
    described: dict[str, list[list[str]]] = {}
    for file in files:
        content = contents.get(file.uri, file.identity)
        described.setdefault(file.source, []).append([file.camera_id, file.stem, content])
    return {source: make_shard_id(sorted(names)) for source, names in described.items()}


def _cache_key(files: Sequence[SourceFile], config: IngestConfig) -> str:
    """Depends on all that the plan depends on."""
    names = [[file.uri, file.kind, file.camera_id, file.stem, file.source, file.identity] for file in files]
    sampling = [config.every, str(config.exact_fps), config.shard_frames, config.detector.needs_pixels]
    return make_shard_id(DECODER_VERSION, names, sampling)


def _write_plan(cache: Folder, key: str, plan: IngestPlan) -> None:
    totals = {"inputs": plan.inputs, "num_videos": plan.num_videos, "num_images": plan.num_images}
    metadata = {"psreid.plan": json.dumps(totals | {"num_faulty": plan.num_faulty})}
    rows = [
        {"shard_id": shard.shard_id, "payload": json.dumps(shard.payload), "rows_expected": shard.rows_expected}
        for shard in plan.shards
    ]
    cache.write_table(f"{key}.parquet", pa.Table.from_pylist(rows, PLAN.with_metadata(metadata)))


def _read_plan(cache: Folder, key: str) -> IngestPlan:
    table = cache.read_table(f"{key}.parquet")
    totals = json.loads(table.schema.metadata[b"psreid.plan"])
    shards = [Shard(row["shard_id"], json.loads(row["payload"]), row["rows_expected"]) for row in table.to_pylist()]
    return IngestPlan(shards=shards, **totals)
