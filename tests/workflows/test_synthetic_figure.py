"""The drawn person: shape, size, colours and speed of light that the truth and the models rely on."""

from dataclasses import replace

import numpy as np
import pytest

from workflows.archive.synthetic.body import pose_skeleton
from workflows.archive.synthetic.figure import Figure, Light, Pose, draw_person
from workflows.archive.synthetic.taxonomy import NO_ITEM, Identity, Item, sample_identity

LEVEL = Pose(phase=0.0, stride=0.0, elevation_deg=0.0)


@pytest.fixture
def person() -> Identity:
    identity = sample_identity(np.random.default_rng(12))
    plain = replace(
        identity.attributes, hat=NO_ITEM, bag=NO_ITEM, pattern=Item("plain", "none"), upper_kind="sweater",
        lower_kind="trousers", hair_style="short",
    )  # fmt: skip
    return replace(identity, attributes=plain, look=replace(identity.look, arms="swing"))


def _colour_at(figure: Figure, fraction: float) -> np.ndarray:
    """Mean colour of the middle of the body at a height, 0 head to 1 feet."""
    row = int(fraction * len(figure.alpha))
    covered = np.flatnonzero(figure.alpha[row] > 0.99)
    middle = covered[len(covered) // 4 : -len(covered) // 4 or None]
    return figure.rgb[row, middle].mean(0)


def test_the_same_arguments_draw_the_same_picture(person: Identity) -> None:
    first, second = (draw_person(person, Pose(0.3, 70), height_px=90) for _ in range(2))
    assert np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(first.alpha, second.alpha)


@pytest.mark.parametrize("height_px", [40, 130, 400])
def test_a_standing_person_is_as_tall_as_asked(person: Identity, height_px: int) -> None:
    figure = draw_person(person, LEVEL, height_px=height_px)
    assert figure.alpha.shape[0] == pytest.approx(height_px, rel=0.07, abs=2)
    assert figure.foot_xy_px[1] == pytest.approx(figure.alpha.shape[0], abs=0.03 * height_px + 2)


def test_coverage_is_soft_at_the_edge_only_and_the_crop_is_tight(person: Identity) -> None:
    alpha = draw_person(person, Pose(0.1, 90), height_px=150).alpha
    assert alpha.min() >= 0 and alpha.max() == pytest.approx(1.0)
    assert 0.02 < ((alpha > 0.02) & (alpha < 0.98)).sum() / (alpha > 0.02).sum() < 0.3
    assert all(edge.any() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))


def test_the_body_has_no_holes(person: Identity) -> None:
    for heading in (0, 90, 180):
        alpha = draw_person(person, replace(LEVEL, heading_deg=heading), height_px=200).alpha
        middle = int(alpha[60].argmax() + (alpha[60] > 0.5).sum() // 2)
        assert (alpha[10:80, middle] > 0.9).all()


def test_clothes_have_their_colours_where_they_are_worn(person: Identity) -> None:
    dark, light = (0.06, 0.06, 0.07), (0.9, 0.9, 0.9)
    dressed = replace(person, look=replace(person.look, upper=dark, lower=light))
    figure = draw_person(dressed, LEVEL, height_px=150, light=Light())
    assert _colour_at(figure, 0.32).max() < 70
    assert _colour_at(figure, 0.75).min() > 110


def test_a_red_sweater_is_red(person: Identity) -> None:
    figure = draw_person(replace(person, look=replace(person.look, upper=(0.7, 0.1, 0.1))), LEVEL, height_px=150)
    red, green, blue = _colour_at(figure, 0.32)
    assert red > 2 * max(green, blue)


def test_a_backpack_is_seen_from_behind_and_hidden_in_front(person: Identity) -> None:
    packed = replace(
        person, attributes=replace(person.attributes, bag=Item("backpack", "red")),
        look=replace(person.look, bag=(0.8, 0.05, 0.05), upper=(0.5, 0.5, 0.5), lower=(0.2, 0.2, 0.2)),
    )  # fmt: skip

    def red_share(heading: float) -> float:
        figure = draw_person(packed, replace(LEVEL, heading_deg=heading), height_px=150)
        rgb = figure.rgb[40:75].astype(int)
        return float(((rgb[..., 0] > 2 * rgb[..., 1]) & (figure.alpha[40:75] > 0.9)).mean())

    assert red_share(180) > 0.3
    assert red_share(180) > 3 * red_share(0)


def test_walking_to_the_right_and_to_the_left_mirror_each_other(person: Identity) -> None:
    right = draw_person(person, replace(LEVEL, heading_deg=90), height_px=150)
    left = draw_person(person, replace(LEVEL, heading_deg=-90), height_px=150)
    assert right.alpha.shape[1] == pytest.approx(left.alpha.shape[1], abs=3)
    toe_right = np.flatnonzero(right.alpha[-4] > 0.5).max() - right.foot_xy_px[0]
    toe_left = left.foot_xy_px[0] - np.flatnonzero(left.alpha[-4] > 0.5).min()
    assert toe_right == pytest.approx(toe_left, abs=4)
    assert toe_right > 4  # feet point where the person goes


def test_a_step_is_wide_in_the_middle_and_one_foot_is_always_on_the_ground(person: Identity) -> None:
    widths = []
    for phase in np.arange(0, 1, 0.1):
        skeleton = pose_skeleton(person.look, "man", Pose(phase=float(phase)))
        ankles = [leg.ankle for leg in skeleton.legs]
        widths.append(abs(float(ankles[0][1] - ankles[1][1])))
        assert 0.02 < min(float(ankle[2]) for ankle in ankles) < 0.19
    assert max(widths) > 0.45 > 0.25 > min(widths)


def test_looking_down_shortens_the_figure(person: Identity) -> None:
    level = draw_person(person, LEVEL, height_px=150)
    steep = draw_person(person, replace(LEVEL, elevation_deg=40), height_px=150)
    assert len(steep.alpha) < 0.92 * len(level.alpha)
