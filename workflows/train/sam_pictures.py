"""What SAM is shown of persons in training, and their true masks: whole frames, or windows where the config zooms.

Shapes: A persons, F pictures, s side of a stored square, S side of SAM's input, h w SAM's low-resolution mask. Boxes
are xyxy as shares of the frame's sides.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from modeling.backbones.sam import PIXEL_MEAN, PIXEL_STD, SamPreprocess
from modeling.ps_reid.config import SegmentationConfig
from modeling.ps_reid.windows import out_of, square_around, within
from workflows.train.augment import sample_windows
from workflows.train.samples import Samples, mask_stride

BOX_JITTER = 0.06
"""How far the edges of boxes are moved at most, as a share of the box's sides."""


@dataclass(frozen=True)
class SamPictures:
    """What SAM sees of A persons, and their truth."""

    pixels_F3SS: Tensor
    picture_A: Tensor
    """Which of the pictures shows each person."""
    squares_A4: Tensor
    """The part of the frame that the picture's square shows; beyond the frame it is padding."""
    masks_Ahw: Tensor
    """The share of each low-resolution pixel that is person."""


class SamPictureMaker:
    """Makes pictures of samples as one model's SAM takes them."""

    def __init__(self, samples: Samples, config: SegmentationConfig) -> None:
        assert config.sam is not None
        self._samples, self._zoom, self._side_px = samples, config.zoom, config.sam.image_size
        self._stride = mask_stride(config.sam)
        self._mask_side = self._side_px // self._stride

    def pictures(self, persons_A: NDArray[np.integer], frames_A: NDArray[np.integer], jitter_A4: Tensor) -> SamPictures:
        """Pictures of persons on their frames; of person -1, who is nowhere, any picture and an empty mask.

        A window lies around the true box with its edges moved by `jitter_A4`, in sides of the box.
        """
        if self._zoom is None:
            return self._whole_frames(persons_A, frames_A)
        shown, first, picture = np.unique(persons_A, return_index=True, return_inverse=True)
        pixels, masks, squares = self._windows(shown, jitter_A4[first], self._zoom)
        picture_A = torch.from_numpy(picture)
        return SamPictures(pixels, picture_A, squares[picture_A], masks[picture_A])

    def boxes(self, persons_A: NDArray[np.integer], jitter_A4: Tensor) -> Tensor:
        """(A, 4) true boxes with their edges moved, cut to the frame as a detector's are."""
        boxes_A4 = torch.from_numpy(self._samples.boxes[persons_A])
        return (boxes_A4 + jitter_A4 * (boxes_A4[:, 2:] - boxes_A4[:, :2]).repeat(1, 2)).clamp(0, 1)

    def _windows(self, persons: NDArray[np.integer], jitter_A4: Tensor, zoom: float) -> tuple[Tensor, Tensor, Tensor]:
        """SAM's input, masks, and what of the frame they show, for each person."""
        stored_A4ss = torch.from_numpy(self._samples.windows[persons]).permute(0, 3, 1, 2).float()
        squares_A4 = torch.from_numpy(self._samples.squares[persons])
        windows_A4 = square_around(within(self.boxes(persons, jitter_A4), squares_A4), zoom)
        cut_A4SS = sample_windows(stored_A4ss, windows_A4, (self._side_px, self._side_px))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
        exists = torch.from_numpy(persons >= 0).view(-1, 1, 1)
        masks_Ahw = F.avg_pool2d(cut_A4SS[:, 3:], self._stride)[:, 0] / 255 * exists
        return (cut_A4SS[:, :3] - mean) / std, masks_Ahw, out_of(windows_A4, squares_A4)

    def _whole_frames(self, persons: NDArray[np.integer], frames: NDArray[np.integer]) -> SamPictures:
        shown, picture = np.unique(frames, return_inverse=True)
        pixels, places = SamPreprocess(self._side_px)([self._samples.wide[frame] for frame in shown])
        squares = [[0.0, 0.0, self._side_px / p.scaled_width, self._side_px / p.scaled_height] for p in places]
        picture_A = torch.from_numpy(picture)
        squares_A4 = torch.tensor(squares).reshape(-1, 4)[picture_A]
        return SamPictures(pixels, picture_A, squares_A4, self._masks_on_frames(persons))

    def _masks_on_frames(self, persons: NDArray[np.integer]) -> Tensor:
        """(A, h, w) truth over SAM's whole low-resolution square; empty for person -1."""
        masks = torch.zeros(len(persons), self._mask_side, self._mask_side)
        for row, person in enumerate(persons):
            if person < 0:
                continue
            sides = self._samples.wide[self._samples.frame[person]].shape[:2]
            height, width = (side // self._stride for side in sides)
            unpacked = np.unpackbits(self._samples.masks[person], axis=1)[:, :width]
            masks[row, :height, :width] = torch.from_numpy(unpacked[:height]).float()
        return masks


def box_jitter(count: int, generator: torch.Generator) -> Tensor:
    """(count, 4) moves of edges, in sides of the box."""
    return (2 * torch.rand(count, 4, generator=generator) - 1) * BOX_JITTER
