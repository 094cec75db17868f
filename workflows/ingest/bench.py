"""How fast an ingest is beside plain PyAV on the same file and the same cores.

The plain way is what one writes first: decode, `to_ndarray("rgb24")`, JPEG at the same quality, in one loop. It is
timed twice: one process whose codec may use every core, and one process per core with its share of the work; the
faster one is the yardstick. The file is taken several times over, so that a run is long enough to measure.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from modeling.errors import DataError
from workflows.annotate.detector import DetectorConfig
from workflows.ingest.config import IngestConfig
from workflows.ingest.step import run_ingest
from workflows.ingest.video_index import probe_video
from workflows.progress import Progress
from workflows.storage import split_uri

MOST_COPIES = 400


@dataclass(frozen=True)
class IngestBench:
    """Frames per second of each way, over `frames` frames."""

    frames: int
    copies: int
    """How often the file was taken."""
    cores: int
    plain_loop_fps: float
    """One process, the codec's threads on all cores."""
    plain_per_core_fps: float
    """One process per core, one codec thread each."""
    pipeline_fps: float
    """The whole ingest, from `run_ingest` to its manifest, in a Ray that is already running."""
    ratio: float
    """`pipeline_fps` over the faster plain way."""


def bench_ingest(path: str, *, every: int = 1, run_s: float, jpeg_quality: int = 95) -> IngestBench:
    """Times both ways on a local video file, `run_s` seconds each or more. Starts Ray if none runs."""
    probe = probe_video(path)
    if probe.index is None or split_uri(path)[0].is_remote:
        raise DataError(f"bench ingest needs a local video that decodes, got {path}: {list(probe.faults)}")
    cores = len(os.sched_getaffinity(0))
    frames_per_copy = -(-probe.index.num_frames // every)
    once_s = _seconds(lambda: _plain_decode(path, 0, every, jpeg_quality))
    copies = max(cores, min(MOST_COPIES, round(run_s / once_s)))
    frames = frames_per_copy * copies
    loop_s = _seconds(lambda: [_plain_decode(path, 0, every, jpeg_quality) for _ in range(copies)])
    per_core_s = _per_core_seconds(path, copies, cores, every, jpeg_quality)
    pipeline_s = _pipeline_seconds(path, copies, every, jpeg_quality)
    best_plain_s = min(loop_s, per_core_s)
    return IngestBench(
        frames=frames,
        copies=copies,
        cores=cores,
        plain_loop_fps=frames / loop_s,
        plain_per_core_fps=frames / per_core_s,
        pipeline_fps=frames / pipeline_s,
        ratio=best_plain_s / pipeline_s,
    )


def _plain_decode(path: str, threads: int, every: int, jpeg_quality: int) -> int:
    """Plain PyAV: every frame decoded, every n-th as RGB and as JPEG; returns the number of bytes."""
    import av
    import cv2

    num_bytes = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads  # 0: as many as FFmpeg likes
        for number, frame in enumerate(container.decode(stream)):
            if number % every == 0:
                rgb = frame.to_ndarray(format="rgb24")
                num_bytes += len(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])[1])
    return num_bytes


def _plain_share(path: str, copies: int, every: int, jpeg_quality: int) -> None:
    for _ in range(copies):
        _plain_decode(path, 1, every, jpeg_quality)


def _per_core_seconds(path: str, copies: int, cores: int, every: int, jpeg_quality: int) -> float:
    shares = [copies // cores + (number < copies % cores) for number in range(cores)]
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        list(pool.map(_plain_share, [path] * cores, [0] * cores, [every] * cores, [jpeg_quality] * cores))  # imports
        started = time.monotonic()
        list(pool.map(_plain_share, [path] * cores, shares, [every] * cores, [jpeg_quality] * cores))
        return time.monotonic() - started


def _pipeline_seconds(path: str, copies: int, every: int, jpeg_quality: int) -> float:
    from workflows.ray_cluster import ensure_ray

    ensure_ray()
    folder = Path(tempfile.mkdtemp(prefix="psreid-bench-"))
    try:
        for number in range(copies):
            source = folder / "videos" / f"cam-{number:03d}{Path(path).suffix}"
            source.parent.mkdir(exist_ok=True)
            source.symlink_to(Path(path).resolve())
        config = IngestConfig(
            sources=[str(folder / "videos")],
            out=str(folder / "frames"),
            every=every,
            jpeg_quality=jpeg_quality,
            detector=DetectorConfig(name="none"),
        )
        return _seconds(lambda: run_ingest(config, Progress()))
    finally:
        shutil.rmtree(folder)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
