"""A rendered frame and the truth about it: masks, boxes, occlusion, infrared, and who walks when."""

from dataclasses import replace

import numpy as np
import pytest

from workflows.archive.synthetic.camera import sample_camera
from workflows.archive.synthetic.config import SynthConfig
from workflows.archive.synthetic.itinerary import Timeline
from workflows.archive.synthetic.scene import Placed, Scene
from workflows.archive.synthetic.stretch import make_camera
from workflows.archive.synthetic.taxonomy import sample_identity
from workflows.archive.synthetic.things import Thing

RNG = np.random.default_rng(0)
NEAR, FAR = sample_identity(RNG), sample_identity(RNG)


@pytest.fixture(scope="module")
def scene() -> Scene:
    scene = Scene(sample_camera("cam-01", np.random.default_rng(5), width=320, height=240, setting="plaza"))
    scene.things = []
    return scene


def _spot(scene: Scene, row: float, column: float = 0.5) -> tuple[float, float]:
    """Ground point seen at a fraction of the picture's height and width."""
    away = scene.camera.away_at_row(row * scene.camera.height)
    return (column - 0.5) * scene.camera.width * away / scene.camera.focal_px, away


def test_mask_box_and_visibility_agree(scene: Scene) -> None:
    frame = scene.render([Placed(NEAR, "a", *_spot(scene, 0.9), 90.0)], 0)
    (truth,) = frame.persons
    rows, columns = np.nonzero(truth.mask_HW)
    assert truth.box_xyxy_px == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert truth.mask_HW.shape == frame.image.shape[:2]
    assert truth.visibility == pytest.approx(1.0)


def test_the_mask_is_where_the_picture_changed(scene: Scene) -> None:
    sharp = Scene(scene.camera)
    sharp.things = []
    sensor = replace(scene.camera.sensor, noise=0.0, blur_px=0.0, shutter_s=0.0)
    sharp.camera = replace(scene.camera, sensor=sensor, light=replace(scene.camera.light, sun=0.0))
    empty = sharp.render([], 0).image.astype(int)
    frame = sharp.render([Placed(NEAR, "a", *_spot(sharp, 0.9), 0.0)], 0)
    changed = np.abs(frame.image.astype(int) - empty).max(2) > 12
    mask = frame.persons[0].mask_HW
    assert changed[mask].mean() > 0.75
    upper_half = np.arange(mask.shape[0])[:, None] < frame.persons[0].box_xyxy_px[1] + 40  # above the shadow
    assert (changed & upper_half & ~mask).sum() < 0.25 * (mask & upper_half).sum()


def test_who_stands_behind_loses_the_hidden_pixels(scene: Scene) -> None:
    front, behind = Placed(NEAR, "front", *_spot(scene, 0.95), 0.0), Placed(FAR, "behind", *_spot(scene, 0.85), 0.0)
    alone = scene.render([behind], 0).persons[0]
    for order in ([front, behind], [behind, front]):
        truths = {truth.placed.key: truth for truth in scene.render(order, 0).persons}
        assert truths["front"].visibility == pytest.approx(1.0)
        assert truths["behind"].visibility < 0.8
        assert not (truths["front"].mask_HW & truths["behind"].mask_HW).any()
        assert np.array_equal(truths["behind"].mask_HW, alone.mask_HW & ~truths["front"].mask_HW)


def test_things_hide_people_behind_them_only(scene: Scene) -> None:
    across, away = _spot(scene, 0.85)
    alone = scene.render([Placed(NEAR, "a", across, away, 0.0)], 0).persons[0]
    left, top, right, bottom = alone.box_xyxy_px
    size = (bottom - top, (right - left) // 2)
    pillar = Thing(np.full((*size, 3), 90, np.uint8), np.ones(size, np.float32), (left, top), (0, 0), away - 1, 5.0)
    screened = Scene(scene.camera)
    screened.things = [pillar]
    hidden = screened.render([Placed(NEAR, "a", across, away, 0.0)], 0).persons[0]
    assert not hidden.mask_HW[top:bottom, left : left + size[1]].any()
    assert 0.2 < hidden.visibility < 0.8
    screened.things = [replace(pillar, away_m=away + 1)]
    assert screened.render([Placed(NEAR, "a", across, away, 0.0)], 0).persons[0].visibility == pytest.approx(1.0)


def test_a_person_cut_by_the_picture_edge_is_partly_visible(scene: Scene) -> None:
    (truth,) = scene.render([Placed(NEAR, "a", *_spot(scene, 0.9, 0.0), 0.0)], 0).persons
    assert truth.box_xyxy_px[0] == 0
    assert 0.2 < truth.visibility < 0.8


def test_nobody_is_listed_who_is_out_of_the_picture(scene: Scene) -> None:
    assert scene.render([Placed(NEAR, "a", *_spot(scene, 0.9, 3.0), 0.0)], 0).persons == ()


def test_hidden_legs_are_not_among_the_visible_parts(scene: Scene) -> None:
    across, away = _spot(scene, 0.9)
    whole = scene.render([Placed(NEAR, "a", across, away, 0.0)], 0).persons[0]
    left, top, right, bottom = whole.box_xyxy_px
    size = ((bottom - top) // 2, right - left)
    wall = Thing(
        np.zeros((*size, 3), np.uint8), np.ones(size, np.float32), (left, bottom - size[0]), (0, 0), away - 1, 5.0
    )
    screened = Scene(scene.camera)
    screened.things = [wall]
    parts = screened.render([Placed(NEAR, "a", across, away, 0.0)], 0).persons[0].visible_parts
    assert "lower" in whole.visible_parts
    assert "lower" not in parts and "upper" in parts


def test_the_noise_is_the_seed_and_the_truth_is_not(scene: Scene) -> None:
    placed = [Placed(NEAR, "a", *_spot(scene, 0.9), 0.0)]
    first, again, other = (scene.render(placed, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    assert np.array_equal(first.persons[0].mask_HW, other.persons[0].mask_HW)


def test_an_infrared_camera_sees_no_colour() -> None:
    camera = sample_camera("cam-02", np.random.default_rng(6), width=320, height=240, is_infrared=True)
    scene = Scene(camera)
    image = scene.render([Placed(NEAR, "a", *_spot(scene, 0.9), 0.0)], 0).image
    assert int(np.ptp(image.astype(int), axis=2).max()) == 0


def test_every_setting_has_its_own_picture() -> None:
    pictures = []
    for setting in ("street", "plaza", "corridor", "shop"):
        camera = sample_camera("cam-01", np.random.default_rng(7), width=160, height=120, setting=setting)
        pictures.append(Scene(camera).background.astype(int))
    for number, picture in enumerate(pictures):
        assert picture.std() > 8
        assert all(np.abs(picture - other).mean() > 4 for other in pictures[:number])


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    config = SynthConfig(out="unused", identities=12, frames=4000, width=320, height=180)
    return Timeline.of(config, 0, make_camera(config, 0))


def test_a_moment_is_the_same_in_any_order(timeline: Timeline) -> None:
    moments = [0.0, 250.0, 3.5, 90.25]
    forward = [timeline.placed(moment) for moment in moments]
    timeline._tracks.clear()
    assert [timeline.placed(moment) for moment in reversed(moments)][::-1] == forward


def test_nobody_is_in_one_picture_twice_and_everybody_comes_by(timeline: Timeline) -> None:
    seen = set()
    for moment in np.arange(0, 120, 0.5):
        people = [track.person for track in timeline.active(float(moment))]
        assert len(people) == len(set(people))
        seen.update(people)
    assert len(seen) == 12


def test_people_move_smoothly(timeline: Timeline) -> None:
    before = {track.number: placed for track, placed in timeline.placed(20.0)}
    after = {track.number: placed for track, placed in timeline.placed(20.25)}
    for number in before.keys() & after.keys():
        moved = np.hypot(after[number].across_m - before[number].across_m, after[number].away_m - before[number].away_m)
        assert moved < 0.25 * 2.2
