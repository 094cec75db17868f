"""What an ingest would do and take: files and frames by planning, seconds by decoding a few of them. Writes nothing."""

from workflows.ingest.config import IngestConfig
from workflows.ingest.payload import FaultyShard, first_frames, read_payload
from workflows.ingest.plan import IngestPlan, make_plan
from workflows.ingest.step import build_stages, check_cameras, check_detections, step_identity
from workflows.ledger import Ledger, Shard
from workflows.plan.sample import sample_stages
from workflows.plan.shapes import this_machine
from workflows.plan.words import describe_bytes, describe_workers
from workflows.plan.work import StepWork, seconds_on
from workflows.progress import Plan, Progress
from workflows.storage import Folder

MOST_OPENED = 200  # new files; of more, so many are opened and stand for the others by their bytes


def plan_ingest(config: IngestConfig) -> Plan:
    """What `run_ingest` would do, and how long it should take, measured on a few frames."""
    out = Folder(config.out)
    is_started = out.exists("step.json")
    ledger = Ledger.open(out, step_identity(config)) if is_started else None
    plan = make_plan(config, Progress(), out=out if is_started else None, most_opened=MOST_OPENED)
    remaining = ledger.remaining(plan.shards) if ledger else list(plan.shards)
    check_cameras(config, plan.shards)
    check_detections(config, remaining)
    work, stored_bytes = _measure(config, remaining, plan.opened_share)
    lines = _counts(plan, remaining) | {
        "bytes to write": describe_bytes(stored_bytes),
        "detector": config.detector.detections or config.detector.name,
        "workers": describe_workers([work], this_machine()),
    }
    return Plan(lines, seconds_on([work], this_machine()), work=[work])


def _counts(plan: IngestPlan, remaining: list[Shard]) -> dict[str, int | float | str]:
    """Exact counts; scaled from the opened files where there were too many to open."""
    share = plan.opened_share
    if share < 1:
        return {
            "new files": plan.num_new_files,
            "opened for this plan": f"{share:.1%} of their bytes",
            "frames to take": round(sum(shard.rows_expected or 0 for shard in remaining) / share),
            "shards to do": round(len(remaining) / share),
        }
    return {
        "videos": plan.num_videos,
        "images": plan.num_images,
        "new files": plan.num_new_files,
        "files with faults": plan.num_faulty,
        "frames": plan.num_frames,
        "frames to take": sum(shard.rows_expected or 0 for shard in remaining),
        "shards": len(plan.shards),
        "shards already done": len(plan.shards) - len(remaining),
    }


def _measure(config: IngestConfig, remaining: list[Shard], share: float) -> tuple[StepWork, float]:
    """The work of the remaining shards and the bytes they give, by a sample of the middle one."""
    with_frames = [shard for shard in remaining if shard.rows_expected]
    frames = sum(shard.rows_expected or 0 for shard in with_frames) / share
    shards = round(len(remaining) / share)
    candidates = [shard for shard in with_frames if not isinstance(read_payload(shard.payload), FaultyShard)]
    if not candidates:
        return StepWork("ingest", shards, ()), 0.0
    middle = candidates[len(candidates) // 2]
    sampled = sample_stages(build_stages(config), lambda rows: first_frames(middle, rows), middle.rows_expected or 1)
    return StepWork("ingest", shards, sampled.scaled(frames)), sampled.stored_bytes / sampled.rows * frames
