"""What SAM's square input shows: the whole frame, or a square window around one box.

Boxes and squares are xyxy. Unless a name says pixels, functions take any unit in which both axes measure the same, and
keep it; `within` and `out_of` take any unit at all. Pixel coordinates have their origin at the frame's top left corner.

Shapes: B boxes or squares, S a window's side and H W a frame's sides in pixels, C colour channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.backbones.sam import PIXEL_MEAN

MEAN_COLOUR = tuple(round(value) for value in PIXEL_MEAN)
"""What lies beyond the frame: zero after SAM's normalisation, as in SAM's own padding."""


@dataclass(frozen=True)
class Window:
    """A square of whole pixels; parts of it may lie beyond the frame."""

    left: int
    top: int
    side: int
    """At least 1."""

    @classmethod
    def around(cls, box_xyxy_px: NDArray[np.float32], zoom: float) -> "Window":
        """The window of one box, `zoom` times the box's longer side wide."""
        left, top, right, _ = square_around(torch.from_numpy(box_xyxy_px).double()[None], zoom)[0].tolist()
        side = max(1, round(right - left))
        return cls(round((left + right - side) / 2), round(top + (right - left - side) / 2), side)

    @property
    def box_xyxy_px(self) -> NDArray[np.float32]:
        """(4,), in pixels of the frame."""
        return np.array([self.left, self.top, self.left + self.side, self.top + self.side], dtype=np.float32)

    def cut(self, image_HWC: NDArray[np.uint8], *, colour: Sequence[int] = MEAN_COLOUR) -> NDArray[np.uint8]:
        """The window's pixels (S, S, C), in one colour beyond the frame."""
        pixels = np.empty((self.side, self.side, len(colour)), dtype=np.uint8)
        pixels[:] = colour
        here, there = self._shared(*image_HWC.shape[:2])
        pixels[here] = image_HWC[there]
        return pixels

    def paste(self, mask_SS: NDArray[np.bool_], frame_HW: NDArray[np.bool_]) -> None:
        """Writes a mask of the window into a mask of the frame; what lies beyond the frame is lost."""
        here, there = self._shared(*frame_HW.shape)
        frame_HW[there] = mask_SS[here]

    def _shared(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns that window and frame share, as the window and as the frame count them."""
        here, there = [], []
        for low, length in ((self.top, height), (self.left, width)):
            start, end = max(low, 0), max(min(low + self.side, length), max(low, 0))
            here.append(slice(start - low, end - low))
            there.append(slice(start, end))
        return (here[0], here[1]), (there[0], there[1])


def square_around(boxes_B4: Tensor, zoom: float) -> Tensor:
    """(B, 4) squares with the boxes' centres, `zoom` times the longer side of each box wide."""
    center_B2 = (boxes_B4[:, :2] + boxes_B4[:, 2:]) / 2
    half_B1 = (boxes_B4[:, 2:] - boxes_B4[:, :2]).amax(1, keepdim=True) * zoom / 2
    return torch.cat([center_B2 - half_B1, center_B2 + half_B1], dim=1)


def within(boxes_B4: Tensor, squares_B4: Tensor) -> Tensor:
    """(B, 4) the boxes as shares of the squares' sides: 0 at a square's left or top edge, 1 at its right or bottom."""
    low_B4, sides_B4 = squares_B4[:, :2].repeat(1, 2), (squares_B4[:, 2:] - squares_B4[:, :2]).repeat(1, 2)
    return (boxes_B4 - low_B4) / sides_B4


def out_of(shares_B4: Tensor, squares_B4: Tensor) -> Tensor:
    """(B, 4) the boxes whose shares of the squares these are, in the squares' unit: undoes `within`."""
    low_B4, sides_B4 = squares_B4[:, :2].repeat(1, 2), (squares_B4[:, 2:] - squares_B4[:, :2]).repeat(1, 2)
    return low_B4 + shares_B4 * sides_B4
