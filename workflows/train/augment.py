"""Random changes to person crops that another camera, another light or a detector would make. Pure torch, seeded.

Shapes: B crops, H W pixels. Values are in [0, 1] unless said otherwise.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_windows(
    crops_B3HW: Tensor, windows_B4: Tensor, size_HW: tuple[int, int], flips_B: Tensor | None = None
) -> Tensor:
    """Cuts a window (xyxy, as shares of the crop) out of each crop, scaled to `size_HW` and mirrored by flips."""
    half = (windows_B4[:, 2:] - windows_B4[:, :2]) * 0.999
    shift = windows_B4[:, :2] + windows_B4[:, 2:] - 1
    theta = torch.zeros(len(crops_B3HW), 2, 3)
    theta[:, 0, 0] = half[:, 0] if flips_B is None else torch.where(flips_B, -half[:, 0], half[:, 0])
    theta[:, 1, 1] = half[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [len(crops_B3HW), 3, *size_HW], align_corners=False)
    return F.grid_sample(crops_B3HW, grid, padding_mode="border", align_corners=False)


COLOURLESS_SHARE = 0.12
"""Crops that lose their colours at full strength."""


def photometric(
    pixels_B3HW: Tensor, generator: torch.Generator, *, strength: float = 1.0, colourless_share: float | None = None
) -> Tensor:
    """Exposure, contrast, gamma, white balance, saturation and now and then no colour at all, per crop.

    A picture without colour mixes the channels by chance: infrared light sees other greys than the eye.
    `colourless_share` of the crops are so; by default some, by the strength.
    """
    if colourless_share is None:
        colourless_share = COLOURLESS_SHARE * strength
    count = len(pixels_B3HW)

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        middle, half = (low + high) / 2, (high - low) / 2 * strength
        return middle + half * (2 * torch.rand(count, channels, 1, 1, generator=generator) - 1)

    out = pixels_B3HW.clamp(0.002, 1) ** uniform(math.log(0.6), math.log(1.7)).exp()
    out = out * uniform(0.65, 1.35) * uniform(0.78, 1.22, channels=3)
    mean = out.mean((2, 3), keepdim=True)
    out = (out - mean) * uniform(0.6, 1.35) + mean + uniform(-0.06, 0.06)
    grey = out.mean(1, keepdim=True)
    saturation = uniform(0.45, 1.35)
    colourless = torch.rand(count, 1, 1, 1, generator=generator) < colourless_share
    shares = torch.rand(count, 3, 1, 1, generator=generator) + 0.05
    mixed = (out * shares / shares.sum(1, keepdim=True)).sum(1, keepdim=True)
    return torch.where(colourless, mixed, grey + (out - grey) * saturation).clamp(0, 1)


def degrade(pixels_B3HW: Tensor, generator: torch.Generator, *, strength: float = 1.0) -> Tensor:
    """Lower resolution (down to a third at full strength), chosen once for each quarter of the batch, and noise."""
    size = pixels_B3HW.shape[-2:]
    parts = []
    for part in pixels_B3HW.chunk(4):
        share = 1 - 0.7 * strength * (1 - torch.rand((), generator=generator).item())
        if share < 0.9:
            small = [max(8, int(s * share)) for s in size]
            part = F.interpolate(part, small, mode="bilinear", antialias=True)
            part = F.interpolate(part, size, mode="bilinear")
        sigma = 0.04 * strength * torch.rand(len(part), 1, 1, 1, generator=generator)
        parts.append(part + sigma * torch.randn(part.shape, generator=generator))
    return torch.cat(parts).clamp(0, 1)


def erase(pixels_B3HW: Tensor, generator: torch.Generator, *, share: float = 0.35) -> Tensor:
    """Covers a band from the bottom, a side or a block, as an occluder would, in a share of the crops."""
    count, _, height, width = pixels_B3HW.shape
    draw = torch.rand(count, 6, generator=generator)
    top, left = draw[:, 0] * 0.8, draw[:, 1] * 0.8
    bottom, right = top + 0.1 + 0.3 * draw[:, 2], left + 0.2 + 0.4 * draw[:, 3]
    is_bottom_band = draw[:, 4] < 0.4
    top = torch.where(is_bottom_band, 0.55 + 0.4 * draw[:, 0], top)
    bottom, left, right = (
        torch.where(is_bottom_band, torch.tensor(edge), value)
        for edge, value in ((1.0, bottom), (0.0, left), (1.0, right))
    )
    y, x = (torch.arange(n) / n for n in (height, width))
    rows = (y >= top[:, None]) & (y < bottom[:, None])
    columns = (x >= left[:, None]) & (x < right[:, None])
    covered = rows[:, None, :, None] & columns[:, None, None, :] & (draw[:, 5] < share)[:, None, None, None]
    colour = torch.rand(count, 3, 1, 1, generator=generator)
    return torch.where(covered, colour, pixels_B3HW)


def jitter_boxes(boxes_B4: Tensor, generator: torch.Generator, *, amount: float) -> Tensor:
    """Boxes with each edge moved by up to `amount` of the box's sides, as detectors do."""
    sides = (boxes_B4[:, 2:] - boxes_B4[:, :2]).repeat(1, 2)
    return boxes_B4 + (2 * torch.rand(boxes_B4.shape, generator=generator) - 1) * amount * sides
