"""Videos whose frames carry their own number as a row of black and white blocks, so that a test can read it back."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BLOCK_PX = 16
BITS = 12  # and as many blocks again, inverted, as a check
WIDTH, HEIGHT = BITS * BLOCK_PX + 2, 82  # odd-ish sizes: not multiples of 16


def draw_number(number: int, *, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(height, width, 3) uint8 RGB: two rows of blocks above a texture that moves, so that encoders use B-frames."""
    bits = [(number >> place) & 1 for place in range(BITS)]
    image = np.zeros((height, width, 3), np.uint8)
    for row, values in enumerate((bits, [1 - bit for bit in bits])):
        blocks = np.repeat(np.array(values, np.uint8) * 255, BLOCK_PX)
        image[row * BLOCK_PX : (row + 1) * BLOCK_PX, : len(blocks)] = blocks[None, :, None]
    y, x = np.mgrid[2 * BLOCK_PX : height, 0:width]
    image[2 * BLOCK_PX :, :, 0] = (np.sin((x + 3 * number) / 9) * 90 + 128).astype(np.uint8)
    image[2 * BLOCK_PX :, :, 1] = (np.cos((y - number) / 7) * 90 + 128).astype(np.uint8)
    return image


def read_number(image: np.ndarray) -> int:
    """The number in a frame (RGB or BGR); AssertionError if the picture is damaged."""
    centers = np.arange(BITS) * BLOCK_PX + BLOCK_PX // 2
    bits = image[BLOCK_PX // 2, centers].mean(axis=1) > 127
    check = image[BLOCK_PX + BLOCK_PX // 2, centers].mean(axis=1) > 127
    assert (bits != check).all(), "the blocks of this frame cannot be read"
    return int(sum(int(bit) << place for place, bit in enumerate(bits)))


def write_video(
    path: Path,
    num_frames: int,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    rate: int = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    draw: Callable[[int], np.ndarray] = draw_number,
    prepare: Callable[[Any], None] = lambda stream: None,
) -> Path:
    """A video of numbered frames. `pts`: presentation times in units of `time_base`; default: constant rate."""
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        first = draw(0)
        stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
        if time_base is not None:
            stream.codec_context.time_base = time_base
        prepare(stream)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(draw(number), format="rgb24")
            frame.pts = number if pts is None else pts[number]
            if time_base is not None:
                frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
