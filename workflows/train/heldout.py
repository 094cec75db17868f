"""A quick look at how a model finds people it was never asked for in training: held-out identities of the same tables.

Small on purpose (a few dozen queries, one gallery): it guides sweeps and shows a run's progress. The protocol of the
paper is `psreid evaluate`.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from modeling.metrics.retrieval import Ranking, score_rankings
from modeling.ps_reid.judge import Judge
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.segmenter import Segmenter
from modeling.regions import crop
from modeling.types import ImageHWC, QueryInput, TargetInput
from workflows.train.catalogue import Catalogue, FrameStore
from workflows.train.draws import EVALUATION
from workflows.train.samples import draw_sightings, is_usable

SIGHTINGS = 4  # of a queried identity: the query, and the frames it is looked for in
MIN_QUERIES = 2
SAMPLES = 6
MASK_COLOUR = (255, 60, 20)


@dataclass(frozen=True)
class Evaluation:
    """What came out."""

    figures: dict[str, float] = field(default_factory=dict)
    """`eval_top1`, `eval_mAP` (fractions of 1) and `eval_queries`."""
    samples: list[ImageHWC] = field(default_factory=list)
    """The best frame of the first queries with the predicted mask, the query's picture in its corner."""


def evaluate_held_out(
    model: PsReid,
    store: FrameStore,
    held_out: Collection[int],
    *,
    num_queries: int,
    num_frames: int,
    seed: int,
) -> Evaluation:
    """Searches for held-out identities; figures and samples are empty where too few are held out.

    Queries show image and text. Every person's box counts as detected. The query's own frame is left out.
    """
    queries, frames = _draw(store.catalogue, held_out, num_queries, num_frames, seed)
    if len(queries) < MIN_QUERIES:
        return Evaluation()
    judge = Judge(model)
    encoded = judge.encode_queries([_query(store, person) for person in queries])
    targets = [_target(store, frame) for frame in frames]
    pairs = [(query.query_id, number) for number in range(len(targets)) for query in encoded]
    decisions = judge.judge({query.query_id: query for query in encoded}, targets, pairs)
    scores = np.array([d.score for d in decisions]).reshape(len(frames), len(queries))
    rankings = [_ranking(store.catalogue, scores[:, i], person, frames) for i, person in enumerate(queries)]
    found = score_rankings(rankings, max_rank=1)
    figures = {"eval_top1": found.top1, "eval_mAP": found.mean_ap, "eval_queries": float(found.num_scored)}
    segmenter, samples = Segmenter(model.segmentation), []
    for column, person in enumerate(queries[:SAMPLES]):
        others = [row for row, frame in enumerate(frames) if frame != store.catalogue.frame[person]]
        best = max(others, key=lambda row: scores[row, column])
        prompt = decisions[best * len(queries) + column].prompt
        samples.append(_drawn(_query(store, person), targets[best], segmenter.masks(targets[best].image, [prompt])[0]))
    return Evaluation(figures, samples)


def _draw(
    catalogue: Catalogue, held_out: Collection[int], num_queries: int, num_frames: int, seed: int
) -> tuple[list[int], list[int]]:
    """Queried persons, and the gallery's frames."""
    rng = np.random.default_rng([seed, EVALUATION])
    groups = catalogue.sightings()
    queries: list[int] = []
    frames: dict[int, None] = {}
    for identity in rng.permutation(sorted(held_out))[:num_queries]:
        first, *others = draw_sightings(catalogue.frame, catalogue.camera, groups[identity], SIGHTINGS, rng)
        queries.append(first)
        frames |= dict.fromkeys(int(catalogue.frame[other]) for other in others)
    for frame in rng.permutation(len(catalogue.frame_ids)).tolist():
        if len(frames) >= num_frames:
            break
        frames[frame] = None
    return queries, sorted(frames)


def _ranking(catalogue: Catalogue, scores: np.ndarray, person: int, frames: list[int]) -> Ranking:
    own, identity = int(catalogue.frame[person]), catalogue.identity[person]
    is_right = np.array([identity in catalogue.identity[catalogue.persons_of(frame)] for frame in frames])
    others = np.array([frame != own for frame in frames])
    order = np.argsort(-scores[others], kind="stable")
    return Ranking(is_right[others][order])


def _drawn(query: QueryInput, target: TargetInput, mask: NDArray[np.bool_]) -> ImageHWC:
    """The frame with the mask over it and the query in the top left corner."""
    picture = target.image.copy()
    picture[mask] = picture[mask] // 2 + np.array(MASK_COLOUR, dtype=np.uint8) // 2
    if query.image is not None:
        height = picture.shape[0] // 3
        width = min(picture.shape[1], max(1, round(query.image.shape[1] * height / query.image.shape[0])))
        picture[:height, :width] = cv2.resize(query.image, (width, height), interpolation=cv2.INTER_AREA)
    return picture


def _query(store: FrameStore, person: int) -> QueryInput:
    frame = int(store.catalogue.frame[person])
    row = store.row(frame)
    place = int(person - store.catalogue.persons_of(frame)[0])
    found = [p for p in row["persons"] if is_usable(p)][place]
    box = np.array(found["box_xyxy_px"], dtype=np.float32)
    return QueryInput(f"held-out-{person}", crop(_decode(row["image"]), box), found["text"])


def _target(store: FrameStore, frame: int) -> TargetInput:
    row = store.row(frame)
    boxes = np.array([p["box_xyxy_px"] for p in row["persons"]], dtype=np.float32).reshape(-1, 4)
    return TargetInput(row["frame_id"], _decode(row["image"]), boxes)


def _decode(image: bytes) -> ImageHWC:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
