"""Whether memory stays flat: the peak of the driver and of each worker of every step, for a small and a large archive.

A large archive is made of a small one by giving its videos again as further cameras. Each step runs in a process of its
own, as the command line would run it, and that process and its descendants are looked at several times a second. What
counts is private memory: pages that a process shares with others (object store, libraries) are left out.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import psutil

from modeling.errors import DataError, JobError
from workflows.annotate.detector import DetectorConfig
from workflows.index.config import IndexConfig
from workflows.ingest.config import IngestConfig
from workflows.ingest.video_index import probe_video
from workflows.progress import Progress
from workflows.search.config import SearchConfig

LOOK_EVERY_S = 0.2
WORKER = "ray::"  # how Ray names the processes that run our code; idle ones are called ray::IDLE
STEPS = ("ingest", "index", "search")
MIB = 1024 * 1024


@dataclass
class Peaks:
    """Peak private memory of one step, bytes."""

    driver: int = 0
    workers: dict[int, int] = field(default_factory=dict)
    """By process."""

    @property
    def largest_worker(self) -> int:
        """Of all workers that the step had."""
        return max(self.workers.values(), default=0)


@dataclass(frozen=True)
class MemoryFigures:
    """One step on one archive."""

    step: str
    frames: int
    driver_mib: float
    largest_worker_mib: float
    num_workers: int


def bench_memory(archive: str, *, sizes: Sequence[int], model: str, progress: Progress) -> list[MemoryFigures]:
    """Ingest, index and search of archives of about `sizes` frames, made of the videos of a `psreid synth` archive.

    Raises DataError when the archive has no videos, detections or queries.
    """
    progress.start("bench memory", total=len(sizes) * len(STEPS), unit="step")
    figures = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="psreid-memory-") as folder:
            frames = repeat_videos(Path(archive), Path(folder), size)
            for step in STEPS:
                peaks = watch_step(step, archive, folder, model)
                workers = len(peaks.workers)
                figures.append(
                    MemoryFigures(step, frames, peaks.driver / MIB, peaks.largest_worker / MIB, workers)
                )  # fmt: skip
                progress.advance()
    progress.finish()
    return figures


def repeat_videos(archive: Path, folder: Path, num_frames: int) -> int:
    """Links the archive's videos and detections under new camera names until `num_frames` are there; their number."""
    videos = sorted((archive / "videos").glob("*.mp4"))
    if not videos or not (archive / "detections").is_dir() or not (archive / "tables" / "queries").is_dir():
        raise DataError(
            f"{archive} lacks videos, detections or tables/queries; give a folder that `psreid synth` wrote"
        )
    for name in ("videos", "detections"):
        (folder / name).mkdir()
    total, copy = 0, 0
    while total < num_frames:
        video = videos[copy % len(videos)]
        name = f"copy-{copy:04d}-{video.stem}"
        (folder / "videos" / f"{name}.mp4").symlink_to(video.resolve())
        (folder / "detections" / f"{name}.det.txt").symlink_to(
            (archive / "detections" / f"{video.stem}.det.txt").resolve()
        )
        index = probe_video(str(video)).index
        total += 0 if index is None else index.num_frames
        copy += 1
    return total


def watch_step(step: str, archive: str, folder: str, model: str) -> Peaks:
    """Runs one step in a new process and gives its peaks. Raises JobError when it fails."""
    process = get_context("spawn").Process(target=_run, args=(step, archive, folder, model))
    process.start()
    assert process.pid is not None
    peaks = Peaks()
    with _watching(lambda: _look(psutil.Process(process.pid), peaks)):
        process.join()
    if process.exitcode:
        raise JobError(f"the {step} of the benchmark ended with exit code {process.exitcode}; run psreid {step} alone")
    return peaks


@contextmanager
def _watching(look: Callable[[], None]) -> Iterator[None]:
    """Calls `look` again and again in a thread while the block runs."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(LOOK_EVERY_S):
            look()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _look(driver: psutil.Process, peaks: Peaks) -> None:
    try:
        peaks.driver = max(peaks.driver, _private_bytes(driver))
        descendants = driver.children(recursive=True)
    except psutil.Error:
        return  # it has ended
    for process in descendants:
        try:
            if process.name().startswith(WORKER) or (process.cmdline() or [""])[0].startswith(WORKER):
                peaks.workers[process.pid] = max(peaks.workers.get(process.pid, 0), _private_bytes(process))
        except psutil.Error:
            continue


def _private_bytes(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def _run(step: str, archive: str, folder: str, model: str) -> None:
    """One step as the command line runs it; imports what only that step needs."""
    os.environ.pop("RAY_ADDRESS", None)
    place = Path(folder)
    if step == "ingest":
        from workflows.ingest.step import run_ingest

        detector = DetectorConfig(detections=str(place / "detections"))
        run_ingest(
            IngestConfig(sources=[str(place / "videos")], out=str(place / "frames"), detector=detector, min_score=0.3,
                         min_height=40, min_width=12),
            Progress(),
        )  # fmt: skip
    elif step == "index":
        from workflows.index.step import run_index

        run_index(IndexConfig(frames=str(place / "frames"), out=str(place / "index"), model=model), Progress())
    else:
        from workflows.search.step import run_search

        queries = str(Path(archive) / "tables" / "queries")
        out = str(place / "matches")
        run_search(
            SearchConfig(index=str(place / "index"), queries=queries, out=out, model=model, report=False), Progress()
        )
