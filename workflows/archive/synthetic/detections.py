"""Detections as a real detector would give them: jittered boxes, misses, false alarms, in the MOT text format."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from workflows.archive.synthetic.population import stream

MISSED = 0.04  # share of well-seen persons
MISSED_HIDDEN = 0.35  # more, as a person is hidden
JITTER = 0.035  # of the box's size
FALSE_ALARMS_PER_FRAME = 0.06


def detection_lines(rows: Iterable[Mapping[str, Any]], *, seed: int, camera_number: int) -> list[str]:
    """One line per detection: frame (1-based), -1, left, top, width, height, score."""
    lines = []
    for row in rows:
        rng = stream("noise", seed, camera_number, int(row["frame_index"]), 1)
        boxes = [_seen(person, rng) for person in row["persons"]]
        boxes += [_imagined(row, rng) for _ in range(int(rng.poisson(FALSE_ALARMS_PER_FRAME)))]
        for left, top, width, height, score in filter(None, boxes):
            lines.append(f"{row['frame_index'] + 1},-1,{left:.1f},{top:.1f},{width:.1f},{height:.1f},{score:.3f}")
    return lines


def _seen(person: Mapping[str, Any], rng: np.random.Generator) -> tuple[float, ...] | None:
    left, top, right, bottom = person["box_xyxy_px"]
    visibility = float(person["score"])
    noise, chance = rng.normal(0, 1, 5), rng.random()
    if chance < MISSED + MISSED_HIDDEN * (1 - visibility):
        return None
    width, height = right - left, bottom - top
    x, y = left + JITTER * width * noise[0], top + JITTER * height * noise[1]
    score = float(np.clip(0.45 + 0.5 * visibility + 0.06 * noise[4], 0.05, 0.999))
    return x, y, width * (1 + JITTER * noise[2]), height * (1 + JITTER * noise[3]), score


def _imagined(row: Mapping[str, Any], rng: np.random.Generator) -> tuple[float, ...]:
    height = row["height"] * rng.uniform(0.15, 0.5)
    width = height * rng.uniform(0.3, 0.5)
    x, y = rng.uniform(0, row["width"] - width), rng.uniform(0, row["height"] - height)
    return float(x), float(y), float(width), float(height), float(rng.uniform(0.2, 0.6))
