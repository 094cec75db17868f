"""Decodes exactly the wanted frames of one video.

A reader stays open and remembers where it is, so a shard that begins where the last one ended goes on without
seeking. Frames that are not wanted are decoded only as far as others depend on them, and never converted.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import av

from workflows.ingest.split import Run, SeekPoint, WantedFrame
from workflows.ingest.video_index import Fault, describe, open_video
from workflows.ingest.video_picture import Converter, VideoPicture

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedFrame:
    """A wanted frame: its picture, or why there is none."""

    wanted: WantedFrame
    picture: VideoPicture | None
    fault: Fault | None = None


class VideoReader:
    """One open video. Use `read` for one run after another; any order works, rising order is fastest."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: AbstractContextManager[Any] | None = None
        self._container: Any = None
        self._stream: Any = None
        self._frames: Iterator[Any] | None = None
        self._position = -1  # index of the last frame that was given out
        self._wanted_pts: frozenset[int | None] | None = None  # of the run; None: every frame is needed for counting
        self._last_pts = 0  # of the run's last frame
        self._damage = _Damage()
        self._problem = ""
        self._converter = Converter()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; the reader can be used again."""
        if self._opened is None:
            return
        self._opened.__exit__(None, None, None)
        self._opened = self._container = self._stream = self._frames = None
        gc.collect()  # a container and its streams refer to each other, and keep the decoder's frames till then

    def read(self, run: Run) -> Iterator[DecodedFrame]:
        """Every wanted frame of the run, in order; one that cannot be decoded comes without a picture."""
        self._problem = ""
        try:
            if self._go_to(run):
                yield from self._match_by_pts(run) if run.seek is not None else self._match_by_count(run)
            else:
                yield from (self._missing(wanted) for wanted in run.frames)
        except BaseException:
            self.close()  # left in the middle of something: the next run starts afresh
            raise

    def _match_by_pts(self, run: Run) -> Iterator[DecodedFrame]:
        assert self._frames is not None
        waiting = list(run.frames)
        for frame in self._frames:
            if frame.pts is None:
                continue
            while waiting and (waiting[0].pts is None or waiting[0].pts < frame.pts):
                yield self._missing(waiting.pop(0))
            if waiting and waiting[0].pts == frame.pts:
                self._position = waiting[0].index
                yield self._picture(waiting.pop(0), frame)
            if not waiting:
                return
        self._frames = None  # the end of the file
        yield from (self._missing(wanted) for wanted in waiting)

    def _match_by_count(self, run: Run) -> Iterator[DecodedFrame]:
        assert self._frames is not None
        waiting = list(run.frames)
        for frame in self._frames:
            self._position += 1
            if waiting[0].index == self._position:
                yield self._picture(waiting.pop(0), frame)
            if not waiting:
                return
        self._frames = None
        yield from (self._missing(wanted) for wanted in waiting)

    def _picture(self, wanted: WantedFrame, frame: Any) -> DecodedFrame:
        if self._damage.covers(frame):
            what = "the decoder marks the frame as damaged" if frame.is_corrupt else "it depends on damaged data"
            return DecodedFrame(wanted, None, Fault("damaged_frame", what + (self._problem and f": {self._problem}")))
        return DecodedFrame(wanted, VideoPicture(frame, self._converter))

    def _missing(self, wanted: WantedFrame) -> DecodedFrame:
        detail = self._problem or "the decoder gives no frame here: the data end or are damaged"
        return DecodedFrame(wanted, None, Fault("not_decodable", detail))

    def _go_to(self, run: Run) -> bool:
        """Puts the decoder at or before the run's first frame, and says whether that could be done."""
        # Frames that no other depends on and nobody wants are not decoded; beyond the run's end, others may want them.
        self._wanted_pts = frozenset(frame.pts for frame in run.frames) if run.seek is not None else None
        self._last_pts = run.frames[-1].pts or 0
        start = run.seek.index if run.seek is not None else 0
        if self._frames is not None and start - 1 <= self._position < run.frames[0].index:
            return True
        try:
            self._restart(run.seek)
        except (av.error.FFmpegError, EOFError) as error:
            self._problem = f"the file cannot be read at this place: {describe(error)}"
            self.close()
            return False
        return True

    def _restart(self, seek: SeekPoint | None) -> None:
        if self._container is None:
            self._open()
        elif seek is None or seek.index == 0:
            self.close()
            self._open()
        self._position = -1
        packets = self._container.demux(self._stream)
        if seek is not None and seek.index > 0:
            packets = self._seek(seek)
            self._position = seek.index - 1
        self._frames, self._damage = self._decode(packets), _Damage()

    def _open(self) -> None:
        self._opened = open_video(self.uri)
        self._container = self._opened.__enter__()
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1  # workers are parallel: one thread each decodes most per core

    def _seek(self, seek: SeekPoint) -> Iterator[Any]:
        """Packets from the keyframe on, or from an earlier one.

        Containers seek by decode or by presentation time, some only roughly, so where it landed is checked.
        """
        for target in (seek.pts, seek.dts):
            self._container.seek(target, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            landed = next((packet for packet in packets if packet.is_keyframe), None)
            if landed is not None and landed.pts is not None and landed.pts <= seek.pts:
                return _chain(landed, packets)
        logger.debug("%s: no seeking to frame %d, decoding from the start", self.uri, seek.index)
        self.close()
        self._open()
        packets_from_start: Iterator[Any] = self._container.demux(self._stream)
        return packets_from_start

    def _decode(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The frames that come out, in presentation order; damaged packets are noted and left out."""
        context = self._stream.codec_context
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self._problem = describe(error)
                packet = None
            if packet is None:
                return
            is_needed = self._wanted_pts is None or packet.pts is None or packet.pts in self._wanted_pts
            context.skip_frame = "DEFAULT" if is_needed or packet.pts > self._last_pts else "NONREF"
            self._damage.sent(packet)
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                self._problem = describe(error)
                self._damage.failed()
                continue
            for frame in frames:
                self._damage.came_out(frame)
                yield frame


class _Damage:
    """Which frames depend on data that could not be decoded: those sent after it, up to the next keyframe.

    Decoders conceal what is missing and smear it over the frames that follow; only few of them are marked.
    """

    def __init__(self) -> None:
        self._is_on = False
        self._in_flight: set[int | None] = set()  # presentation times in the decoder, not out yet
        self._covered: set[int | None] = set()

    def sent(self, packet: Any) -> None:
        if packet.is_keyframe:
            self._is_on = False
            self._covered.discard(None)
        self._in_flight.add(packet.pts)
        self._is_on |= packet.is_corrupt
        if self._is_on:
            self._covered.add(packet.pts)

    def failed(self) -> None:
        """The last packet could not be decoded."""
        self._is_on = True

    def came_out(self, frame: Any) -> None:
        if frame.is_corrupt:
            self._is_on = True
            self._covered |= self._in_flight
        if frame.pts is not None:
            self._in_flight = {pts for pts in self._in_flight if pts is not None and pts > frame.pts}
            self._covered = {pts for pts in self._covered if pts is None or pts >= frame.pts}

    def covers(self, frame: Any) -> bool:
        return bool(frame.is_corrupt) or frame.pts in self._covered


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
