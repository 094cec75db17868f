"""One decoded video frame as a picture: its JPEG, made from the decoder's own planes where they allow it.

Most footage is 4:2:0 YUV, and so is JPEG inside. Going through BGR costs two colour conversions and an upsampling of
the chroma that JPEG undoes, a fifth of the time of decoding and storing a frame of 768 x 576.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import simplejpeg
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from workflows.ingest.images import CHROMA_STEP_PX, Picture, encode_jpeg, is_colourless, is_infrared

BT601 = {2, 5, 6}  # FFmpeg's numbers of unspecified, BT.470 BG and SMPTE 170M: what JPEG means by YUV
PLANAR_420 = {"yuv420p", "yuvj420p"}
JPEG_MOST_SIDE = 65_500
LUMA_RANGE = (16, 219)
CHROMA_RANGE = (16, 224)


@dataclass(frozen=True)
class YuvPlanes:
    """Full-range BT.601 planes, uint8: luma (h, w), chroma (ceil(h / 2), ceil(w / 2))."""

    luma: NDArray[np.uint8]
    blue: NDArray[np.uint8]
    red: NDArray[np.uint8]


class Converter:
    """What the pictures of one video are converted with: making it anew costs more than a conversion.

    It lends out one set of planes, so they hold until the next picture's are asked for.
    """

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()
        self._lent: dict[str, NDArray[np.uint8]] = {}

    def full_range(self, name: str, plane: NDArray[np.uint8], lowest: int, levels: int) -> NDArray[np.uint8]:
        """Levels from `lowest` on stretched to 0-255 (chroma about its middle), what lies outside cut off.

        Half the time of a table look-up.
        """
        scale = 255 / levels
        offset = -lowest * scale if levels == LUMA_RANGE[1] else 128 - 128 * scale
        lent = self._lent.get(name)
        if lent is None or lent.shape != plane.shape:
            lent = self._lent[name] = np.empty(plane.shape, np.uint8)
        cv2.max(plane, lowest, dst=lent)
        cv2.convertScaleAbs(lent, dst=lent, alpha=scale, beta=offset)
        return lent


class VideoPicture:
    """A frame as it comes out of the decoder; nothing is converted before it is asked for."""

    def __init__(self, frame: Any, converter: Converter) -> None:
        self._frame, self._converter = frame, converter
        matrix = frame.side_data.get("DISPLAYMATRIX")
        self._matrix = None if matrix is None else np.frombuffer(bytes(matrix), np.int32)

    @cached_property
    def bgr(self) -> Picture:
        """(height, width, 3) uint8, upright."""
        converted = self._converter.reformatter.reformat(
            self._frame, format="bgr24", interpolation=Interpolation.BILINEAR, threads=1
        )
        bgr = np.asarray(converted.to_ndarray(), np.uint8)
        return bgr if self._matrix is None else upright(bgr, self._matrix)

    @cached_property
    def planes(self) -> YuvPlanes | None:
        """The decoder's planes; None where they are of another kind than JPEG's, or the picture must be turned."""
        frame = self._frame
        is_like_jpeg = frame.format.name in PLANAR_420 and frame.colorspace in BT601
        if not is_like_jpeg or self._matrix is not None or max(frame.width, frame.height) > JPEG_MOST_SIDE:
            return None
        luma, blue, red = (_plane(plane) for plane in frame.planes)
        if frame.format.name == "yuvj420p" or frame.color_range == ColorRange.JPEG:
            return YuvPlanes(*(np.ascontiguousarray(plane) for plane in (luma, blue, red)))
        return YuvPlanes(
            self._converter.full_range("luma", luma, *LUMA_RANGE),
            self._converter.full_range("blue", blue, *CHROMA_RANGE),
            self._converter.full_range("red", red, *CHROMA_RANGE),
        )

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the upright picture in pixels."""
        if self.planes is not None:
            height, width = self.planes.luma.shape
            return height, width
        return self.bgr.shape[0], self.bgr.shape[1]

    def jpeg(self, quality: int) -> bytes | memoryview:
        """The picture as JPEG, 4:2:0."""
        planes = self.planes
        if planes is None:
            return encode_jpeg(self.bgr, quality)
        jpeg: bytes = simplejpeg.encode_jpeg_yuv_planes(planes.luma, planes.blue, planes.red, quality=quality)
        return jpeg

    @property
    def is_infrared(self) -> bool:
        """`images.is_infrared` of the picture, from its planes where it has some."""
        if self.planes is None:
            return is_infrared(self.bgr)
        step = CHROMA_STEP_PX // 2
        sample = (
            self.planes.luma[::CHROMA_STEP_PX, ::CHROMA_STEP_PX],
            self.planes.red[::step, ::step],
            self.planes.blue[::step, ::step],
        )
        ycc = cv2.merge([np.ascontiguousarray(plane) for plane in sample])
        return is_colourless(np.asarray(cv2.cvtColor(ycc, cv2.COLOR_YCrCb2BGR), np.uint8))


def upright(image: Picture, matrix: NDArray[np.int32]) -> Picture:
    """The picture as a player shows it. `matrix`: the 9 numbers of the display matrix, (x, y) -> (ax + cy, bx + dy).

    Only quarter turns and mirrors are applied: other angles have no picture without empty corners.
    """
    a, b, c, d = (int(np.sign(matrix[place])) for place in (0, 1, 3, 4))
    if (a == 0 or d == 0) and b and c:
        image, a, d = image.transpose(1, 0, 2), c, b
    if a < 0:
        image = image[:, ::-1]
    if d < 0:
        image = image[::-1]
    return np.ascontiguousarray(image)


def _plane(plane: Any) -> NDArray[np.uint8]:
    """(h, w) view of a plane without the padding at the end of its lines."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
