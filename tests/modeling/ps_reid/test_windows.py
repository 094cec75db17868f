"""Windows around boxes: where they lie, what they show, and that a mask returns to where it was cut."""

import numpy as np
import pytest
import torch

from modeling.ps_reid.windows import MEAN_COLOUR, Window, out_of, square_around, within

HEIGHT, WIDTH = 90, 160
BOXES = {
    "inside": (60, 30, 80, 70),
    "wide": (50, 40, 90, 50),
    "top left corner": (0, 0, 12, 30),
    "bottom right corner": (150, 60, 160, 90),
    "larger than the frame is high": (20, 0, 60, 90),
    "the whole frame": (0, 0, 160, 90),
    "less than a pixel": (70.2, 40.1, 70.6, 40.3),
    "no area": (33, 44, 33, 44),
    "in the corner, no area": (160, 90, 160, 90),
}


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_a_mask_returns_to_where_it_was_cut(box: tuple[float, ...], frame: np.ndarray) -> None:
    window = Window.around(np.array(box, dtype=np.float32), 1.5)
    assert window.side >= 1
    mask = frame[..., 0] > 127
    cut = window.cut(mask[..., None].astype(np.uint8), colour=(1,))[..., 0].astype(bool)
    assert cut.shape == (window.side, window.side)
    back = np.zeros_like(mask)
    window.paste(cut, back)
    left, top, right, bottom = window.box_xyxy_px.astype(int)
    inside = np.zeros_like(mask)
    inside[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    np.testing.assert_array_equal(back, mask & inside)


@pytest.mark.parametrize("box", [b for name, b in BOXES.items() if "pixel" not in name and "area" not in name])
def test_a_window_lies_around_its_box(box: tuple[float, ...]) -> None:
    window = Window.around(np.array(box, dtype=np.float32), 1.5)
    center = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    np.testing.assert_allclose((window.box_xyxy_px[:2] + window.box_xyxy_px[2:]) / 2, center, atol=0.5)
    assert window.side == pytest.approx(1.5 * max(box[2] - box[0], box[3] - box[1]), abs=0.5)


def test_what_lies_beyond_the_frame_has_sams_mean_colour(frame: np.ndarray) -> None:
    pixels = Window(-4, -6, 20).cut(frame)
    np.testing.assert_array_equal(pixels[6:, 4:], frame[:14, :16])
    assert (pixels[:6] == MEAN_COLOUR).all() and (pixels[:, :4] == MEAN_COLOUR).all()
    assert (Window(500, -300, 7).cut(frame) == MEAN_COLOUR).all()


def test_boxes_go_into_squares_and_come_back() -> None:
    boxes = torch.tensor([[10.0, 20, 30, 60], [0, 0, 8, 4]])
    squares = square_around(boxes, 2.0)
    torch.testing.assert_close(squares, torch.tensor([[-20.0, 0, 60, 80], [-4, -6, 12, 10]]))
    shares = within(boxes, squares)
    torch.testing.assert_close(shares, torch.tensor([[0.375, 0.25, 0.625, 0.75], [0.25, 0.375, 0.75, 0.625]]))
    torch.testing.assert_close(out_of(shares, squares), boxes)
