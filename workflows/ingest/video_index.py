"""Which frames a video has, in presentation order, found by reading its packets without decoding them.

Frame k is the k-th frame that a player shows. Containers store frames in decode order, so k cannot be told from a
position in the file; it can be told from the presentation times (`pts`) of all packets, sorted. That holds for
variable frame rates, B-frames and edit lists, and it costs one pass over the bytes (30 ms for 800 frames). Where a
container stores no usable times (raw streams, some AVI files), frames are counted from the start instead, by decoding.

Times are integers in units of `time_base` seconds.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from workflows.storage import split_uri

FRAMES_CHECKED = 16  # decoded at planning to see that the file decodes, and in the order that its times promise
DURATION_TOLERANCE_S = 1.0  # between the header's duration and the last frame's time
REMOTE_BUFFER_BYTES = 1 << 20

logger = logging.getLogger(__name__)
Times = NDArray[np.int64]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file or a frame: a short class of cause, and what happened."""

    reason: str
    detail: str


@dataclass(frozen=True)
class VideoIndex:
    """The frames of one video."""

    num_frames: int
    pts: Times | None
    """(frames,) Time of every frame, increasing; None: the container has no usable times, so frames are counted."""
    key_index: Times
    """(keyframes,) Frame index of every keyframe, increasing."""
    key_pts: Times
    key_dts: Times
    """Decode time of every keyframe: some containers seek by it."""
    time_base: Fraction
    frame_rate: Fraction | None
    content: str
    """Hash of the packet table: the same for the same file under any name or date."""

    @property
    def is_counted(self) -> bool:
        return self.pts is None

    def timestamp_s(self, frame_index: int) -> float | None:
        """Seconds from the first frame; None where the file tells neither times nor a rate."""
        if self.pts is not None:
            return float(int(self.pts[frame_index] - self.pts[0]) * self.time_base)
        return float(frame_index / self.frame_rate) if self.frame_rate else None


@dataclass(frozen=True)
class VideoProbe:
    """What planning learned of a file: its frames, if it has any that can be decoded, and what is wrong with it."""

    index: VideoIndex | None
    faults: Sequence[Fault] = ()
    creation_time: str | None = None
    """As the container gives it, ISO 8601."""


@dataclass(frozen=True)
class _Packets:
    """The packet table of a video stream, in decode order. pts and dts are -1 << 63 where missing."""

    pts: Times
    dts: Times
    is_key: NDArray[np.bool_]
    content: str
    fault: Fault | None


MISSING = -(1 << 63)


@contextmanager
def open_video(uri: str) -> Iterator[Any]:
    """The file as a PyAV container; remote files are read by ranges, so memory does not grow with their length."""
    folder, name = split_uri(uri)
    if not folder.is_remote:
        with av.open(uri) as container:
            yield container
        return
    with folder.open_input(name) as file, av.open(file, buffer_size=REMOTE_BUFFER_BYTES) as container:
        yield container


def probe_video(uri: str) -> VideoProbe:
    """Reads every packet of the file and decodes its first frames. Never raises for what the file holds."""
    folder, name = split_uri(uri)
    if folder.size_bytes(name) == 0:
        return VideoProbe(None, [Fault("empty_file", "the file has no bytes")])
    try:
        with open_video(uri) as container:
            if not container.streams.video:
                kinds = sorted({stream.type for stream in container.streams}) or ["none"]
                return VideoProbe(None, [Fault("no_video_stream", f"streams in the file: {', '.join(kinds)}")])
            return _probe_stream(uri, container, container.streams.video[0])
    except (av.error.FFmpegError, EOFError, ValueError) as error:
        return VideoProbe(None, [Fault("not_a_video", f"the file cannot be opened as a video: {describe(error)}")])


def describe(error: Exception) -> str:
    """FFmpeg's message without the path and errno that PyAV puts around it."""
    return str(getattr(error, "strerror", None) or error)


def _probe_stream(uri: str, container: Any, stream: Any) -> VideoProbe:
    packets = _read_packets(container, stream)
    faults = [packets.fault] if packets.fault else []
    first_pts, problem = _decode_first(uri)
    if not first_pts:
        detail = f"no frame of {len(packets.pts)} packets can be decoded: {problem or 'the decoder gives none'}"
        return VideoProbe(None, [*faults, Fault("not_decodable", detail)])
    time_base, rate = Fraction(stream.time_base), stream.average_rate or stream.guessed_rate
    index = _index_by_times(packets, first_pts, is_clean=not problem, time_base=time_base, rate=rate)
    if index is None:
        num_frames = _count_frames(uri)
        logger.info("%s: no usable times in the container, counted %d frames by decoding", uri, num_frames)
        none = np.empty(0, np.int64)
        index = VideoIndex(num_frames, None, none, none, none, time_base, rate, packets.content)
    return VideoProbe(index, faults, container.metadata.get("creation_time"))


def _find_missing(container: Any, stream: Any, pts: Sequence[int]) -> Fault | None:
    """What the header promises and the file does not hold. Only headers that are known to be right are believed."""
    formats = set(container.format.name.split(","))
    if "mov" in formats and len(pts) < stream.frames:
        return Fault("truncated", f"the header promises {stream.frames} frames, the file holds {len(pts)}")
    if "matroska" in formats and len(container.streams) == 1 and container.duration and pts:
        promised_s, found_s = container.duration / av.time_base, float(max(pts) * stream.time_base)
        if promised_s > found_s + DURATION_TOLERANCE_S:
            return Fault("truncated", f"the header promises {promised_s:.1f} s, the file holds {found_s:.1f} s")
    return None


def _read_packets(container: Any, stream: Any) -> _Packets:
    pts, dts, is_key, fault = [], [], [], None
    digest = hashlib.sha256(f"{stream.codec_context.name} {stream.time_base}".encode())
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:  # the flush packet; frames that an edit list hides
                continue
            pts.append(MISSING if packet.pts is None else packet.pts)
            dts.append(MISSING if packet.dts is None else packet.dts)
            is_key.append(packet.is_keyframe)
            digest.update(b"%d %d %d;" % (pts[-1], dts[-1], packet.size))
    except av.error.FFmpegError as error:
        fault = Fault("truncated", f"the file cannot be read beyond packet {len(pts)}: {describe(error)}")
    fault = _find_missing(container, stream, pts) or fault
    return _Packets(
        np.array(pts, np.int64), np.array(dts, np.int64), np.array(is_key, np.bool_), digest.hexdigest()[:32], fault
    )


def _decode_first(uri: str) -> tuple[list[int | None], str]:
    """Times of the first frames that come out of the decoder, and the last problem on the way."""
    times: list[int | None] = []
    problem = ""
    with open_video(uri) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        try:
            for packet in container.demux(stream):
                try:
                    times += [frame.pts for frame in packet.decode()]
                except av.error.FFmpegError as error:
                    problem = describe(error)
                if len(times) >= FRAMES_CHECKED:
                    break
        except av.error.FFmpegError as error:
            problem = describe(error)
    return times[:FRAMES_CHECKED], problem


def _index_by_times(
    packets: _Packets, first_pts: Sequence[int | None], *, is_clean: bool, time_base: Fraction, rate: Fraction | None
) -> VideoIndex | None:
    """The index by presentation times, or None where they are missing, repeated, or not what the decoder gives.

    `is_clean`: the first frames were decoded without an error, so none may be missing (a field-coded stream has two
    packets per frame).
    """
    decoded = [time for time in first_pts if time is not None]
    if len(decoded) < len(first_pts) or (packets.pts == MISSING).any():
        return None
    # What comes before the first decodable frame (a recording cut in mid-GOP) is never shown, so it has no index.
    is_shown = packets.pts >= decoded[0]
    if packets.fault is not None and packets.dts[-1] != MISSING:
        is_shown &= packets.pts <= packets.dts[-1]  # later frames may lack neighbours that were stored behind them
    order = np.argsort(packets.pts[is_shown], kind="stable")
    pts_N, dts_N = packets.pts[is_shown][order], packets.dts[is_shown][order]
    checked = np.array(decoded, np.int64)
    agrees = np.array_equal(pts_N[: len(checked)], checked) if is_clean else np.isin(checked, pts_N).all()
    if (np.diff(pts_N) <= 0).any() or not agrees:
        return None
    is_key = packets.is_key[is_shown][order]
    is_key[0] = True  # reading from the start needs no keyframe
    keys = np.flatnonzero(is_key)
    return VideoIndex(
        num_frames=len(pts_N),
        pts=pts_N,
        key_index=keys.astype(np.int64),
        key_pts=pts_N[keys],
        key_dts=dts_N[keys],
        time_base=time_base,
        frame_rate=rate,
        content=packets.content,
    )


def _count_frames(uri: str) -> int:
    num_frames = 0
    with open_video(uri) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        try:
            for packet in container.demux(stream):
                try:
                    num_frames += len(packet.decode())
                except av.error.FFmpegError:
                    continue
        except av.error.FFmpegError:
            pass
    return num_frames
