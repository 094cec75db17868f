"""Pictures in files and memory: odd formats in, upright 8-bit BGR out, and JPEG bytes for the frames table."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from modeling.errors import DataError

MOST_PIXELS = 200_000_000  # a picture larger than this is an attack or a mistake
IR_MOST_CHROMA = 2.0  # mean (max - min) over the channels, of 255; compression noise of a grey scene stays below
IR_LEAST_LIGHT = 8.0  # mean of the green channel, of 255; a black frame tells nothing of its camera
CHROMA_STEP_PX = 8  # every 8th row and column is looked at: 0.04 ms for 768 x 576

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class ReadImage:
    """A picture (HWC uint8 BGR, upright) and, where its file is already a plain upright JPEG, the file's own bytes."""

    image_bgr: Picture
    jpeg: bytes | None


def read_image(data: bytes) -> ReadImage:
    """Decodes JPEG, PNG, BMP, TIFF, WebP, PNM. Raises OSError or DataError for what is broken, empty or oversized.

    EXIF orientation is applied, transparency is laid over black, 16-bit and float greys are scaled to 8 bit (16 bit by
    their range, floats by their extremes); of several pictures in one file, the first.
    """
    if not data:
        raise DataError("the file has no bytes")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise DataError(str(error)) from error
    with image as opened:
        if opened.width * opened.height > MOST_PIXELS:
            raise DataError(f"{opened.width} x {opened.height} pixels are more than the {MOST_PIXELS} allowed")
        is_plain_jpeg = opened.format == "JPEG" and opened.mode == "RGB" and opened.getexif().get(0x0112, 1) == 1
        rgb = np.asarray(_to_rgb(ImageOps.exif_transpose(opened)))
    return ReadImage(np.ascontiguousarray(rgb[:, :, ::-1]), data if is_plain_jpeg else None)


def encode_jpeg(image_bgr: Picture, quality: int) -> memoryview:
    """JPEG bytes, still in the encoder's buffer: copying them cost a tenth of the encoding.

    OpenCV's encoder took 1.4 ms for 768 x 576 at quality 95, Pillow's 2.2 ms.
    """
    done, data = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"a picture of shape {image_bgr.shape} cannot be stored as JPEG (65,500 pixels a side at most)")
    return np.ascontiguousarray(data).reshape(-1).data


def is_infrared(image_bgr: Picture) -> bool:
    """Whether a picture has no colour, as infrared cameras give it; a black-and-white film also counts.

    Decided per frame, because day-and-night cameras switch in mid-file.
    """
    return is_colourless(np.ascontiguousarray(image_bgr[::CHROMA_STEP_PX, ::CHROMA_STEP_PX]))


def is_colourless(sample_bgr: Picture) -> bool:
    """`is_infrared` of the pixels that are looked at, (height, width, 3)."""
    blue, green, red = cv2.split(sample_bgr)
    chroma = cv2.subtract(cv2.max(cv2.max(blue, green), red), cv2.min(cv2.min(blue, green), red))
    return cv2.mean(chroma)[0] <= IR_MOST_CHROMA and cv2.mean(green)[0] >= IR_LEAST_LIGHT


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float64))
        low, high = values.min(), values.max()
        return Image.fromarray(((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA")).convert(
            "RGB"
        )
    return image.convert("RGB")
