"""A quick look at how a model finds people it was never asked for in training: held-out identities of the same tables.

Small on purpose (a few dozen queries, one gallery): it guides sweeps and shows a run's progress. The protocol of the
paper is `psreid evaluate`.
"""

from collections.abc import Collection

import cv2
import numpy as np

from modeling.metrics.retrieval import Ranking, score_rankings
from modeling.ps_reid.judge import Judge
from modeling.ps_reid.model import PsReid
from modeling.regions import crop
from modeling.types import ImageHWC, QueryInput, TargetInput
from workflows.train.catalogue import Catalogue, FrameStore
from workflows.train.draws import EVALUATION
from workflows.train.samples import draw_sightings, is_usable

SIGHTINGS = 4  # of a queried identity: the query, and the frames it is looked for in
MIN_QUERIES = 2


def evaluate_held_out(
    model: PsReid,
    store: FrameStore,
    held_out: Collection[int],
    *,
    num_queries: int,
    num_frames: int,
    seed: int,
) -> dict[str, float]:
    """`eval_top1`, `eval_mAP` (fractions) and `eval_queries`; empty where too few identities are held out.

    Queries show image and text. Every person's box counts as detected. The query's own frame is left out.
    """
    queries, frames = _draw(store.catalogue, held_out, num_queries, num_frames, seed)
    if len(queries) < MIN_QUERIES:
        return {}
    judge = Judge(model)
    encoded = judge.encode_queries([_query(store, person) for person in queries])
    targets = [_target(store, frame) for frame in frames]
    pairs = [(query.query_id, number) for number in range(len(targets)) for query in encoded]
    decisions = judge.judge({query.query_id: query for query in encoded}, targets, pairs)
    scores = np.array([d.score for d in decisions]).reshape(len(frames), len(queries))
    rankings = [_ranking(store.catalogue, scores[:, i], person, frames) for i, person in enumerate(queries)]
    found = score_rankings(rankings, max_rank=1)
    return {"eval_top1": found.top1, "eval_mAP": found.mean_ap, "eval_queries": float(found.num_scored)}


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
