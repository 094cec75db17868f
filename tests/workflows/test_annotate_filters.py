"""Which detections stay, and under which reason the others are counted."""

import numpy as np
import pytest

from workflows.annotate.detector import Detections
from workflows.annotate.filters import Candidate, Drop, Keep, PersonFilters, clip_boxes, suppress_overlaps

FILTERS = PersonFilters(min_score=0.5, min_height_px=75, min_width_px=25, nms_iou=0.4)


def detections(*rows) -> Detections:
    values = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(values[:, :4], values[:, 4], [f"track-{k}" for k in range(len(values))])


@pytest.mark.parametrize(
    ("width", "height", "score", "expected"),
    [
        (25, 75, 0.5, Keep()),
        (40, 120, 0.49, Drop("person_score_too_low")),
        (40, 74.9, 0.9, Drop("person_too_low_in_pixels")),
        (24.9, 120, 0.9, Drop("person_too_narrow_in_pixels")),
        (0, 120, 0.9, Drop("person_outside_frame")),
        (40, 120, float("nan"), Drop("person_outside_frame")),
    ],
)
def test_one_box_one_verdict(width, height, score, expected):
    assert FILTERS.judge(Candidate(width, height, score)) == expected


def test_persons_come_surest_first_and_every_drop_is_counted():
    found = detections(
        (0, 0, 40, 100, 0.7),
        (200, 0, 240, 100, 0.9),
        (203, 2, 243, 102, 0.8),  # the same person again
        (300, 0, 340, 50, 0.9),
        (-100, 0, -10, 100, 0.9),
        (400, 0, 440, 100, 0.1),
    )
    kept, drops = FILTERS.apply(found, width_px=640, height_px=480)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])
    assert kept.track_ids == ["track-1", "track-0"]
    assert drops == {
        "person_overlaps_a_surer_one": 1,
        "person_too_low_in_pixels": 1,
        "person_outside_frame": 1,
        "person_score_too_low": 1,
    }
    assert len(kept) + drops.total() == len(found)


def test_boxes_are_clipped_before_they_are_measured():
    kept, drops = FILTERS.apply(detections((-20, 400, 40, 520, 0.9)), width_px=640, height_px=480)
    assert kept.boxes_xyxy_px.tolist() == [[0, 400, 40, 480]]
    _, drops = FILTERS.apply(detections((-20, 410, 40, 520, 0.9)), width_px=640, height_px=480)
    assert drops == {"person_too_low_in_pixels": 1}


def test_no_detections_no_persons():
    kept, drops = FILTERS.apply(Detections.none(), width_px=640, height_px=480)
    assert (len(kept), drops.total(), kept.boxes_xyxy_px.shape) == (0, 0, (0, 4))


def slow_suppression(boxes: np.ndarray, scores: np.ndarray, iou: float) -> list[int]:
    kept: list[int] = []
    for place in sorted(range(len(scores)), key=lambda k: (-scores[k], k)):
        a = boxes[place].astype(np.float64)
        for other in kept:
            b = boxes[other].astype(np.float64)
            inner = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
            if inner / union > iou:
                break
        else:
            kept.append(place)
    return kept


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.5, 1.0])
def test_suppression_equals_the_obvious_way(iou):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 80, (60, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (60, 2))], axis=1).astype(np.float32)
    scores = rng.choice([0.1, 0.5, 0.9], 60).astype(np.float32)
    assert suppress_overlaps(boxes, scores, iou=iou).tolist() == slow_suppression(boxes, scores, iou)


def test_clipping_keeps_boxes_inside():
    boxes = clip_boxes(np.array([[-5, -5, 700, 500], [10, 10, 20, 20]], np.float32), width_px=640, height_px=480)
    assert boxes.tolist() == [[0, 0, 640, 480], [10, 10, 20, 20]]
