"""H.264 in and out of memory: a stretch of frames as a small MP4, and stretches joined into a camera's film.

Encoded with one thread and without B-frames: the same pictures give the same bytes, and stretches can be joined
without encoding again.
"""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

TIME_BASE_HZ = 90_000


def encode_stretch(images: Iterable[NDArray[np.uint8]], *, fps: float, quality: int, size_wh: tuple[int, int]) -> bytes:
    """Frames (H, W, 3) RGB as an MP4; `quality` is x264's constant rate factor, 18 fine .. 35 coarse."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size_wh, "yuv420p"
        stream.options = {"crf": str(quality), "preset": "veryfast", "bf": "0", "threads": "1", "g": "32"}
        stream.codec_context.thread_count = 1
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return sink.getvalue()


def decode_stretch(data: bytes) -> Iterator[NDArray[np.uint8]]:
    """Frames of an MP4 as RGB."""
    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def join_stretches(stretches: Iterable[bytes], sink: BinaryIO, *, fps: float) -> int:
    """Writes the stretches one after the other as one MP4 and returns its number of frames; nothing is re-encoded."""
    rate = Fraction(fps).limit_denominator(1000)
    count = 0
    with av.open(sink, "w", format="mp4") as output:
        stream = None
        for data in stretches:
            with av.open(io.BytesIO(data)) as source:
                track = source.streams.video[0]
                if stream is None:
                    stream = output.add_stream_from_template(track)
                    stream.time_base = Fraction(1, TIME_BASE_HZ)
                for packet in source.demux(track):
                    if packet.size == 0:
                        continue
                    packet.pts = packet.dts = round(count / rate * TIME_BASE_HZ)
                    packet.duration = round(TIME_BASE_HZ / rate)
                    packet.time_base = Fraction(1, TIME_BASE_HZ)
                    packet.stream = stream
                    output.mux(packet)
                    count += 1
    return count
