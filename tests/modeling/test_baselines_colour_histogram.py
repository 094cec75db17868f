"""The colour histogram on pictures whose histogram is known, and on real footage where it is at hand."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modeling.baselines.colour_histogram import ColourHistogram
from modeling.errors import DataError
from modeling.metrics.retrieval import Ranking, score_rankings
from modeling.regions import box_iou, crop
from modeling.types import QueryInput

FOOTAGE = Path(os.environ["PSREID_SHARED"]) / "footage" if os.environ.get("PSREID_SHARED") else None


def plain(colour: tuple[int, int, int], height: int = 60) -> np.ndarray:
    return np.full((height, 20, 3), colour, dtype=np.uint8)


def test_a_plain_crop_fills_one_bin_of_each_stripe() -> None:
    (vector,) = ColourHistogram().embed_persons([plain((255, 0, 0))])
    assert vector.shape == (768,) and np.linalg.norm(vector) == pytest.approx(1.0)
    assert np.flatnonzero(vector).tolist() == [128 * stripe + 15 for stripe in range(6)]  # hue 0, full S and V
    assert vector[15] == pytest.approx(1 / np.sqrt(6))


def test_cosine_is_the_mean_bhattacharyya_coefficient_of_the_stripes() -> None:
    half = np.concatenate([plain((255, 0, 0), 30), plain((0, 0, 255), 30)])
    red, both = ColourHistogram().embed_persons([plain((255, 0, 0)), half])
    assert red @ both == pytest.approx(0.5)
    mixed = np.concatenate([plain((255, 0, 0)), plain((0, 0, 255))], axis=1)
    assert ColourHistogram().embed_persons([mixed])[0] @ red == pytest.approx(np.sqrt(0.5))


def test_tiny_crops_and_no_crops_are_fine_and_text_alone_is_refused() -> None:
    histogram = ColourHistogram()
    assert np.linalg.norm(histogram.embed_persons([plain((9, 9, 9), 2)])[0]) == pytest.approx(1.0)
    assert histogram.embed_persons([]).shape == (0, 768)
    with pytest.raises(DataError, match="'q1' has no image"):
        histogram.embed_queries([QueryInput("q1", None, "a man")])


if FOOTAGE is not None:

    def read_boxes(name: str) -> Iterator[tuple[int, int, np.ndarray]]:
        """(0-based frame, identity, xyxy box) of a MOT file."""
        for line in (FOOTAGE / name).read_text().splitlines():
            frame, identity, x, y, w, h, *_ = (float(value) for value in line.split(","))
            yield int(frame) - 1, int(identity), np.array([x, y, x + w, y + h], dtype=np.float32)

    def test_person_search_on_pets_is_near_the_recorded_floor() -> None:
        """The recorded mAP 0.355 and top-1 0.474 do not define their bins: 19 queries, so one is 0.053 of top-1."""
        import av

        spec = json.loads((FOOTAGE / "pets09-s2l1.queries.json").read_text())
        gallery = spec["gallery_frame_index"]
        needed = {*gallery, *(query["frame_index"] for query in spec["queries"])}
        with av.open(str(FOOTAGE / "pets09-s2l1.mp4")) as video:
            images = {
                number: frame.to_ndarray(format="rgb24")
                for number, frame in enumerate(video.decode(video=0))
                if number in needed
            }
        truth = {(frame, identity): box for frame, identity, box in read_boxes("pets09-s2l1.gt.txt")}
        found: dict[int, list[np.ndarray]] = {}
        for frame, _, box in read_boxes("pets09-s2l1.det.txt"):
            found.setdefault(frame, []).append(box)
        histogram = ColourHistogram()
        embedded = {f: histogram.embed_persons([crop(images[f], box) for box in found.get(f, [])]) for f in gallery}
        rankings = []
        for query in spec["queries"]:
            (vector,) = histogram.embed_persons([crop(images[query["frame_index"]], query["box_xyxy_px"])])
            scores, hits, missed = [], [], 0
            for frame in gallery:
                if frame == query["frame_index"] or not len(embedded[frame]):
                    continue
                of_frame = embedded[frame] @ vector
                is_hit = np.zeros(len(of_frame), dtype=bool)
                box = truth.get((frame, query["identity"]))
                if box is not None:
                    width, height = box[2] - box[0], box[3] - box[1]
                    needed_iou = min(0.5, width * height / ((width + 10) * (height + 10)))
                    near = np.flatnonzero(box_iou(np.stack(found[frame]), box[None])[:, 0] >= needed_iou)
                    missed += not near.size
                    is_hit[near[np.argsort(-of_frame[near])[:1]]] = True
                scores.append(of_frame)
                hits.append(is_hit)
            order = np.argsort(-np.concatenate(scores), kind="stable")
            rankings.append(Ranking(np.concatenate(hits)[order], num_missed=missed))
        floor = score_rankings(rankings)
        assert floor.mean_ap == pytest.approx(0.355, abs=0.02)
        assert floor.top1 == pytest.approx(0.474, abs=0.054)
