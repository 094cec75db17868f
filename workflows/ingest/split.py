"""Which frames of a video are taken, and how they are cut into shards that many workers can decode at once.

A frame can only be decoded from a keyframe on, so a cut inside a group of pictures (GOP: a keyframe and what depends
on it) makes two shards decode its beginning. Cuts therefore fall on keyframes where they can.

A shard's frames are a list of runs. One run is decoded in one go from its seek point; where sampling leaves whole
GOPs out, the next run seeks past them instead of decoding them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from workflows.ingest.video_index import Times, VideoIndex

LARGEST_GROWTH = 4  # a shard grows to this many times its size to keep a GOP whole
TIME_TOLERANCE_S = Fraction(1, 1000)  # containers that count milliseconds put frame 1 of 30 fps at 0.033 s
UNKNOWN_RATE = Fraction(25)  # frames per second, of a raw stream that does not tell


@dataclass(frozen=True)
class WantedFrame:
    """A frame to decode: its index, its presentation time (None where frames are counted), its time in seconds."""

    index: int
    pts: int | None
    timestamp_s: float | None


@dataclass(frozen=True)
class SeekPoint:
    """A keyframe: its frame index, presentation time and decode time."""

    index: int
    pts: int
    dts: int


@dataclass(frozen=True)
class Run:
    """Frames that are decoded in one go. `seek` is None where decoding has to start with the file."""

    seek: SeekPoint | None
    frames: tuple[WantedFrame, ...]


def sample_frames(index: VideoIndex, *, every: int | None = None, fps: Fraction | None = None) -> Times:
    """Indices of the frames to take: all, every n-th from 0, or the first at or after each multiple of 1/fps seconds.

    By time, a video slower than `fps` gives all its frames, and variable frame rates are sampled evenly in time.
    """
    if fps is None:
        return np.arange(0, index.num_frames, every or 1, dtype=np.int64)
    if index.pts is not None:
        ticks_N, unit_s = index.pts - index.pts[0], index.time_base
    else:
        ticks_N, unit_s = np.arange(index.num_frames, dtype=np.int64), 1 / (index.frame_rate or UNKNOWN_RATE)
    step, offset = unit_s * fps, TIME_TOLERANCE_S * fps
    scale = step.denominator * offset.denominator
    slot_N = (ticks_N * (step.numerator * offset.denominator) + offset.numerator * step.denominator) // scale
    is_first = np.ones(len(slot_N), np.bool_)
    is_first[1:] = slot_N[1:] > slot_N[:-1]
    return np.flatnonzero(is_first).astype(np.int64)


def cut_shards(index: VideoIndex, wanted: Times, *, shard_frames: int, keep_gops_whole: bool) -> list[tuple[Run, ...]]:
    """The wanted frames as shards of about `shard_frames` frames, each a list of runs.

    `keep_gops_whole`: a GOP of up to 4 x `shard_frames` wanted frames is not cut. That halves the decoding of a
    plain ingest; a stage after it that takes far longer than decoding does better with smaller shards.
    """
    limit = shard_frames * (LARGEST_GROWTH if keep_gops_whole else 1)
    shards: list[Times] = []
    open_shard = wanted[:0]
    for gop in _by_gop(index, wanted):
        if len(open_shard) + len(gop) > shard_frames and len(open_shard):
            shards.append(open_shard)
            open_shard = wanted[:0]
        if len(gop) > limit:
            shards += np.array_split(gop, -(-len(gop) // limit))
        else:
            open_shard = np.concatenate([open_shard, gop])
    if len(open_shard):
        shards.append(open_shard)
    return [_runs(index, frames) for frames in shards]


def split_rows(runs: Sequence[Run]) -> list[Run]:
    """One run per frame, for isolating a bad one."""
    return [Run(run.seek, (frame,)) for run in runs for frame in run.frames]


def _by_gop(index: VideoIndex, wanted: Times) -> list[Times]:
    """The wanted frames, grouped by the keyframe they are decoded from; all in one group where frames are counted."""
    if index.is_counted or not len(wanted):
        return [wanted] if len(wanted) else []
    gop = np.searchsorted(index.key_index, wanted, side="right")
    return np.split(wanted, np.flatnonzero(np.diff(gop)) + 1)


def _runs(index: VideoIndex, wanted: Times) -> tuple[Run, ...]:
    """The frames of one shard as runs: a new run where the next keyframe lies beyond the frame before."""
    if index.pts is None:
        return (Run(None, tuple(WantedFrame(int(k), None, index.timestamp_s(int(k))) for k in wanted)),)
    frames = [WantedFrame(int(k), int(index.pts[k]), index.timestamp_s(int(k))) for k in wanted]
    runs: list[Run] = []
    for frame in frames:
        gop = int(np.searchsorted(index.key_index, frame.index, side="right")) - 1
        key = SeekPoint(*(int(values[gop]) for values in (index.key_index, index.key_pts, index.key_dts)))
        if runs and key.index <= runs[-1].frames[-1].index + 1:
            runs[-1] = Run(runs[-1].seek, (*runs[-1].frames, frame))
        else:
            runs.append(Run(key, (frame,)))
    return tuple(runs)
