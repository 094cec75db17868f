"""`psreid ingest`: sources in, a step folder of frames with persons out."""

import os
from collections.abc import Sequence

from modeling.errors import ConfigError
from workflows.annotate.mot import MotDetections
from workflows.annotate.stage import DetectPersons
from workflows.ingest.config import IngestConfig
from workflows.ingest.decode import DecodeFrames
from workflows.ingest.payload import DECODER_VERSION, ImageShard, VideoShard, read_payload
from workflows.ingest.plan import IngestPlan, keep_plan, make_plan
from workflows.ledger import Ledger, Manifest, Shard, StepIdentity, describe_growth
from workflows.lock import hold_lock
from workflows.progress import Progress, Summary
from workflows.runner import run_step
from workflows.schema import SCHEMA_VERSION
from workflows.stages import Resources, StageSpec
from workflows.storage import Folder

ROW_GROUP_ROWS = 16  # a reader that wants one frame fetches 16
DECODE_CPUS = 0.6  # three on two cores: one of them waits for storage now and then
MOST_DETECTOR_CPUS = 4  # threads of one detector on the CPU; more do not make it faster
MOST_DETECTORS = 64


def run_ingest(config: IngestConfig, progress: Progress) -> Summary:
    """Runs or continues the ingest, or adds what is new in its sources, and says what came out."""
    out, identity = Folder(config.out), step_identity(config)
    if out.exists("step.json"):
        Ledger.open(out, identity)  # refuses other settings before anything is read
    with hold_lock(out):
        plan = make_plan(config, progress, out=out)
        check_cameras(config, plan.shards)
        check_detections(config, Ledger(out, identity).remaining(plan.shards))
        Ledger.open(out, identity)
        keep_plan(plan, out)
        before = Ledger(out, identity).manifest
    for note in plan.notes:
        progress.say(f"ingest: {note}")
    manifest = run_step(
        folder=out,
        identity=identity,
        shards=plan.shards,
        stages=build_stages(config),
        max_quarantine_share=config.max_quarantine_share,
        progress=progress,
        row_group_rows=ROW_GROUP_ROWS,
    )
    return _summary(out, plan, manifest, describe_growth(before, manifest, unit="frames"))


def step_identity(config: IngestConfig) -> StepIdentity:
    """What makes two ingests the same. The size of shards is in it: another size gives other parts.

    Sources are not: they may grow, and `OUT/plan/` knows what was taken in of them.
    """
    kept = config.model_dump(mode="json", exclude={"sources", "out", "max_quarantine_share", "changed"})
    for speed_only in ("batch_frames", "device"):
        kept["detector"].pop(speed_only)
    return StepIdentity("ingest", kept, {}, code_version=f"ingest-{DECODER_VERSION}", schema_version=SCHEMA_VERSION)


def build_stages(config: IngestConfig) -> list[StageSpec]:
    """Decoding, then detection. A detector that holds a model gets a pool of long-lived workers."""
    decode = StageSpec(
        DecodeFrames,
        {"jpeg_quality": config.jpeg_quality, "ir_cameras": config.ir_cameras},
        Resources(cpus=DECODE_CPUS),
    )
    detector = config.detector
    if detector.detections is None and detector.name == "none":
        return [decode]
    holds_model = detector.detections is None and detector.name != "hog"
    on_gpu = detector.device.startswith("cuda")
    threads = min(MOST_DETECTOR_CPUS, os.cpu_count() or 1) if holds_model and not on_gpu else DECODE_CPUS
    detect = StageSpec(
        DetectPersons,
        {
            "config": detector,
            "min_score": config.min_score,
            "min_height_px": config.min_height,
            "min_width_px": config.min_width,
            "nms_iou": config.nms_iou,
        },
        Resources(cpus=threads, gpus=1.0 if holds_model and on_gpu else 0.0),
        pool=(1, MOST_DETECTORS) if holds_model else None,
    )
    return [decode, detect]


def check_detections(config: IngestConfig, remaining: Sequence[Shard]) -> None:
    """DataError before anything runs when a video has no detection file."""
    if config.detector.detections is None:
        return
    detections = MotDetections(config.detector.detections)
    for camera_id, stem in sorted(_names_of(remaining)):
        detections.locate(camera_id, stem, 0)


def check_cameras(config: IngestConfig, shards: Sequence[Shard]) -> None:
    """ConfigError before anything runs when an infrared camera does not exist."""
    cameras = {camera_id for camera_id, _ in _names_of(shards)}
    unknown = sorted(set(config.ir_cameras) - cameras)
    if unknown and cameras:
        raise ConfigError(
            f"ir_cameras names {', '.join(unknown)}, but the sources have only the cameras "
            f"{', '.join(sorted(cameras)[:12])}. Correct the name."
        )


def _names_of(shards: Sequence[Shard]) -> set[tuple[str, str]]:
    """(camera_id, stem) of every file of these shards that gives frames."""
    contents = [read_payload(shard.payload) for shard in shards]
    names = {(video.camera_id, video.stem) for video in contents if isinstance(video, VideoShard)}
    return names | {
        (file.camera_id, file.stem) for some in contents if isinstance(some, ImageShard) for file in some.files
    }


def _summary(out: Folder, plan: IngestPlan, manifest: Manifest, growth: str | None) -> Summary:
    dropped = sum(manifest.drops.values())
    details = [growth] if growth else []
    if plan.num_without_clock:
        details.append(
            f"{plan.num_without_clock} of {plan.num_videos + plan.num_images} files do not tell when they were "
            "recorded: a search by date passes them over, --start-times FILE tells it"
        )
    if dropped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in manifest.drops.items())
        details.append(f"detections dropped: {dropped} ({reasons})")
    if manifest.quarantined:
        reasons = ", ".join(f"{reason} {count}" for reason, count in manifest.quarantine_reasons.items())
        details.append(
            f"quarantined: {manifest.quarantined} ({reasons}), each with its reason in {out.path('quarantine')}/"
        )
    sources = " and ".join(
        f"{count} {name if count != 1 else name.removesuffix('s')}"
        for count, name in ((plan.num_videos, "videos"), (plan.num_images, "images"))
        if count
    )
    return Summary(
        headline=f"{manifest.rows} frames from {sources} are in {out.uri}.",
        output=out.uri,
        figures={
            "frames": manifest.rows,
            "videos": plan.num_videos,
            "images": plan.num_images,
            "new_files": plan.num_new_files,
            "shards": manifest.shards,
            "detections_dropped": dropped,
            "quarantined": manifest.quarantined,
            "seconds_of_work": manifest.seconds,
        },
        details=details,
    )
