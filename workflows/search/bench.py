"""What Ray, the ledger and Arrow cost: the index pipeline against plain Python loops on the same cores and frames.

The baseline is what one would write without this project: read a Parquet part, decode, crop, embed. It runs twice, as
one process whose numerical libraries use every core, and as one single-threaded process a core; the faster one counts.
All sides start from nothing (model load included) with Ray already up, and encode the same frames as often.
"""

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing import get_context

from modeling.errors import DataError
from modeling.regions import crop
from modeling.types import ImageHWC
from workflows.index.config import IndexConfig
from workflows.index.frames import decode_image
from workflows.index.inputs import StepInput, open_step
from workflows.index.models import load_person_encoder
from workflows.index.step import encode_stage, index_identity, index_shards
from workflows.index.workers import num_cores
from workflows.ledger import Shard, make_shard_id
from workflows.progress import Progress
from workflows.runner import ensure_ray, run_step
from workflows.storage import Folder
from workflows.worker import limit_threads

LOOP_PERSONS = 64  # persons of one forward pass in the plain loop
PROBE_S = 5.0  # spent to learn how many passes make a run long enough


@dataclass(frozen=True)
class PipelineFigures:
    """Frames per second of both sides, over whole runs."""

    cores: int
    frames: int
    """Frames encoded by each side, counting a frame once a pass."""
    ray_start_s: float
    """Time to start or reach Ray; in no other figure."""
    pipeline_s: float
    pipeline_frames_per_s: float
    one_process_frames_per_s: float
    """A plain loop with all cores for its numerical libraries."""
    process_per_core_frames_per_s: float
    """Plain loops side by side, one thread each."""

    @property
    def ratio(self) -> float:
        """The pipeline's frames/s over the faster plain way's."""
        plain = max(self.one_process_frames_per_s, self.process_per_core_frames_per_s)
        return self.pipeline_frames_per_s / plain


def bench_pipeline(frames_uri: str, *, model: str = "tiny", least_s: float = 60.0) -> PipelineFigures:
    """Encodes the frames by the pipeline and by plain loops, in as many passes as make each run last `least_s`."""
    frames = open_step(frames_uri, command="ingest")
    if not frames.parts:
        raise DataError(f"{frames.folder.uri} holds no frame to measure with; give a folder with some")
    cores = num_cores()
    parts = [part.name for part in frames.parts]
    passes = _passes_needed(frames, model, cores, least_s)
    started = time.monotonic()
    ensure_ray()
    ray_start_s = time.monotonic() - started
    num_frames = frames.manifest.rows * passes
    pipeline_s = _run_pipeline(frames, model, passes)
    one_s = _timed_loops(frames.folder.uri, parts * passes, model, processes=1, threads=cores)
    many_s = _timed_loops(frames.folder.uri, parts * passes, model, processes=cores, threads=1)
    return PipelineFigures(
        cores, num_frames, ray_start_s, pipeline_s, num_frames / pipeline_s, num_frames / one_s, num_frames / many_s
    )


def encode_plainly(frames_uri: str, parts: Sequence[str], model: str, threads: int) -> int:
    """A plain loop over some parts; gives the number of persons embedded."""
    limit_threads(threads)
    encoder = load_person_encoder(model, device="cpu")
    limit_threads(threads)  # again: torch is imported by now
    folder, num_persons = Folder(frames_uri), 0
    for part in parts:
        waiting: list[ImageHWC] = []
        for crops in _crops_of_part(folder, part):
            waiting += crops
            if len(waiting) >= LOOP_PERSONS:
                num_persons += len(encoder.embed_persons(waiting))
                waiting = []
        if waiting:
            num_persons += len(encoder.embed_persons(waiting))
    return num_persons


def _crops_of_part(folder: Folder, part: str) -> Iterator[list[ImageHWC]]:
    """The persons of each frame that can be decoded."""
    for frame in folder.read_table(part, ["frame_id", "image", "persons"]).to_pylist():
        try:
            image = decode_image(frame["image"], what=frame["frame_id"])
            yield [crop(image, person["box_xyxy_px"]) for person in frame["persons"]]
        except DataError:
            continue  # the pipeline sets it aside


def _run_pipeline(frames: StepInput, model: str, passes: int) -> float:
    """Seconds of a whole index step into a temporary folder, each frame `passes` times."""
    with tempfile.TemporaryDirectory(prefix="psreid-bench-") as out:
        config = IndexConfig(frames=frames.folder.uri, out=out, model=model)
        shards = index_shards(config, frames)
        repeated = [_again(shard, number) for number in range(passes) for shard in shards]
        started = time.monotonic()
        run_step(
            folder=Folder(out),
            identity=index_identity(config, frames),
            shards=repeated,
            stages=[encode_stage(config, frames)],
            max_quarantine_share=1.0,
            progress=Progress(),
        )
        return time.monotonic() - started


def _again(shard: Shard, number: int) -> Shard:
    return replace(shard, shard_id=make_shard_id(shard.shard_id, number))


def _timed_loops(frames_uri: str, parts: Sequence[str], model: str, *, processes: int, threads: int) -> float:
    """Seconds until all processes are through with their share, from their start."""
    started = time.monotonic()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        shares = [parts[number::processes] for number in range(processes)]
        runs = [pool.submit(encode_plainly, frames_uri, share, model, threads) for share in shares if share]
        for run in runs:
            run.result()
    return time.monotonic() - started


def _passes_needed(frames: StepInput, model: str, cores: int, least_s: float) -> int:
    """How often the archive is encoded so that a run on all cores lasts long enough, from a probe in this process."""
    encoder = load_person_encoder(model, device="cpu")
    num_frames, started = 0, time.monotonic()
    for crops in chain.from_iterable(_crops_of_part(frames.folder, part.name) for part in frames.parts):
        if time.monotonic() - started > PROBE_S:
            break
        encoder.embed_persons(crops)
        num_frames += 1
    per_second = cores * num_frames / (time.monotonic() - started)
    return max(1, math.ceil(least_s * per_second / frames.manifest.rows))
