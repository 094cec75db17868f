"""What an index would do and take: parts and frames from the manifest, persons and seconds by embedding a few."""

from collections.abc import Callable

from workflows.index.config import IndexConfig
from workflows.index.frames import frame_ids_of
from workflows.index.inputs import StepInput
from workflows.index.step import check_nothing_vanished, encode_stage, index_identity, index_shards, open_frames
from workflows.ledger import Ledger, PartInfo, Shard
from workflows.plan.sample import sample_stages
from workflows.plan.shapes import this_machine
from workflows.plan.words import describe_bytes, describe_workers
from workflows.plan.work import StepWork, seconds_on
from workflows.progress import Plan
from workflows.storage import Folder

PARTS_SAMPLED = 3  # evenly spread over the archive, for its persons and bytes


def plan_index(config: IndexConfig) -> Plan:
    """What `run_index` would do; the time is measured on frames of the archive."""
    frames, out = open_frames(config.frames), Folder(config.out)
    shards, rows_of = index_shards(config, frames), {part.name: part.rows for part in frames.parts}
    remaining = shards
    if out.exists("step.json"):
        check_nothing_vanished(out, frames, shards)
        remaining = Ledger.open(out, index_identity(config, frames)).remaining(shards)
    frames_left = sum(rows_of[str(shard.payload["part"])] for shard in remaining)
    sampled_parts = spread(frames, PARTS_SAMPLED)
    middle = sampled_parts[len(sampled_parts) // 2]
    sampled = sample_stages([encode_stage(config, frames)], first_rows(frames.folder, middle), middle.rows)
    work = StepWork("index", len(remaining), sampled.scaled(frames_left))
    lines: dict[str, int | float | str] = {
        "frames": frames.manifest.rows,
        "frames to index": frames_left,
        "persons": f"about {round(sampled.table.num_rows / sampled.rows * frames_left)}",
        "shards": len(shards),
        "shards already done": len(shards) - len(remaining),
        "bytes to read": describe_bytes(bytes_per_frame(frames) * frames_left),
        "bytes to write": describe_bytes(sampled.stored_bytes / sampled.rows * frames_left),
        "workers": describe_workers([work], this_machine()),
    }
    return Plan(lines, seconds_on([work], this_machine()), work=[work])


def spread(frames: StepInput, count: int) -> list[PartInfo]:
    """Up to `count` parts, evenly spread."""
    parts = list(frames.parts)
    step = max(1, len(parts) // count)
    return parts[::step][:count]


def first_rows(folder: Folder, part: PartInfo) -> Callable[[int], Shard]:
    """A function that gives the shard of a part's first so many frames."""
    ids = frame_ids_of(folder, part.name)
    return lambda rows: Shard("sample", {"part": part.name, "frame_ids": ids[:rows]})


def bytes_per_frame(frames: StepInput) -> float:
    """Of the stored frames, by the sizes of a few parts."""
    parts = spread(frames, PARTS_SAMPLED)
    return sum(frames.folder.size_bytes(part.name) for part in parts) / max(sum(part.rows for part in parts), 1)
