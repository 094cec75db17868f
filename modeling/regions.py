"""Boxes, masks and crops of one frame: conversions, overlap, and COCO's run-length form of a mask.

Pixel frame: x to the right, y downwards, the origin at the top left corner of the top left pixel, so that a box
(0, 0, width, height) covers the frame exactly. Knows nothing of models.

Shapes: N, M = boxes; H, W = frame height and width in pixels; C = channels.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from modeling.errors import DataError

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]

Rle = dict[str, list[int] | bytes]
"""COCO's compressed run-length mask: `size` is [H, W], `counts` the compressed column-major runs as bytes."""


def mask_to_rle(mask_HW: BoolArray) -> Rle:
    """COCO's compressed run-length form of a mask, byte for byte what pycocotools writes."""
    if mask_HW.ndim != 2:
        raise DataError(f"a mask must have two axes (height, width), got shape {mask_HW.shape}")
    encoded = coco_mask.encode(np.asfortranarray(mask_HW.astype(bool, copy=False), dtype=np.uint8))
    return {"size": [int(length) for length in encoded["size"]], "counts": bytes(encoded["counts"])}


def rle_to_mask(rle: Mapping[str, object]) -> BoolArray:
    """The mask (H, W) of a compressed run-length form; `counts` may be bytes or, as in COCO's JSON, ASCII text."""
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list | tuple | np.ndarray) or len(size) != 2 or not isinstance(counts, bytes | str):
        raise DataError(f"a mask's RLE needs size [height, width] and compressed counts, got {dict(rle)!r:.200}")
    height, width = int(size[0]), int(size[1])
    runs = _read_runs(counts.encode("ascii") if isinstance(counts, str) else counts)
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise DataError(f"a mask's RLE covers {sum(runs)} pixels, its size says {height} x {width} (height x width)")
    is_inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_inside, runs).reshape(width, height).T


def mask_to_box(mask_HW: BoolArray) -> npt.NDArray[np.float32] | None:
    """The tight box_xyxy_px (4,) around a mask's pixels, None when the mask is empty."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if rows.size == 0:
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)


def box_xywh_to_xyxy(boxes_xywh: npt.ArrayLike) -> FloatArray:
    """(..., 4) left, top, width, height -> left, top, right, bottom."""
    boxes = _as_boxes(boxes_xywh)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def box_xyxy_to_xywh(boxes_xyxy: npt.ArrayLike) -> FloatArray:
    """(..., 4) left, top, right, bottom -> left, top, width, height."""
    boxes = _as_boxes(boxes_xyxy)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def clip_box(boxes_xyxy_px: npt.ArrayLike, *, height: int, width: int) -> FloatArray:
    """(..., 4) boxes cut to the frame; a box wholly outside becomes one without area on the frame's edge."""
    limits = np.array([width, height, width, height])
    boxes = _as_boxes(boxes_xyxy_px)
    return np.clip(boxes, 0, limits).astype(boxes.dtype)


def box_area(boxes_xyxy: npt.ArrayLike) -> FloatArray:
    """(...) areas; a box whose right or bottom does not lie beyond its left or top has area 0."""
    boxes = _as_boxes(boxes_xyxy)
    return np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), axis=-1)


def box_iou(first_N4: npt.ArrayLike, second_M4: npt.ArrayLike) -> FloatArray:
    """(N, M) intersection over union of every box of the first list with every one of the second, xyxy, in [0, 1].

    Two boxes without area have IoU 0.
    """
    first, second = _as_boxes(first_N4).reshape(-1, 1, 4), _as_boxes(second_M4).reshape(1, -1, 4)
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    intersection_NM = np.prod(np.clip(high - low, 0, None), axis=-1)
    union_NM = box_area(first) + box_area(second) - intersection_NM
    return np.divide(intersection_NM, union_NM, out=np.zeros_like(union_NM), where=union_NM > 0)


def crop(image_HWC: ByteArray, box_xyxy_px: npt.ArrayLike, margin: float = 0.0) -> ByteArray:
    """The pixels under a box, as a contiguous copy (h, w, C).

    `margin` widens the box on each side by that fraction of its own width and height. The box is rounded outwards to
    whole pixels and cut to the image; at least one pixel of it must lie inside.
    """
    height, width = image_HWC.shape[:2]
    left, top, right, bottom = (float(edge) for edge in np.asarray(box_xyxy_px, dtype=np.float64).reshape(4))
    margin_x, margin_y = margin * (right - left), margin * (bottom - top)
    x0, y0 = max(0, int(np.floor(left - margin_x))), max(0, int(np.floor(top - margin_y)))
    x1, y1 = min(width, int(np.ceil(right + margin_x))), min(height, int(np.ceil(bottom + margin_y)))
    if right <= left or bottom <= top or x1 <= x0 or y1 <= y0:
        raise DataError(
            f"the box {[left, top, right, bottom]} (left, top, right, bottom in pixels) has no pixel inside the "
            f"image of {width} x {height} pixels"
        )
    return image_HWC[y0:y1, x0:x1].copy()


def _as_boxes(boxes: npt.ArrayLike) -> FloatArray:
    """Boxes as floating point; float32 and float64 are kept as they are, everything else becomes float64."""
    array = np.asarray(boxes)
    if array.shape == (0,):
        array = array.reshape(0, 4)
    if array.shape[-1:] != (4,):
        raise DataError(f"boxes must have four numbers in their last axis, got shape {array.shape}")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _read_runs(counts: bytes) -> list[int]:
    """Lengths of the runs, outside and inside by turns, of COCO's compressed counts.

    A number is written in groups of 5 bits, low first, as characters from "0" on, whose bit 5 says that more follow;
    from the fourth run on it is the difference to the run before the last. Not left to pycocotools, whose C code trusts
    the counts and leaves its buffer when they are damaged.
    """
    runs: list[int] = []
    value = shift = 0
    for symbol in counts:
        bits = symbol - ord("0")
        if not 0 <= bits < 64 or shift > 60:
            raise DataError(f"a mask's RLE counts are not in COCO's compressed form: {counts!r:.80}")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        value -= (1 << shift) if bits & 0x10 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError(f"a mask's RLE counts end within a number: {counts[-80:]!r}")
    return runs
