"""A few of the pairs that a search will judge, chosen as the search chooses them, for an estimate of its cost.

Shapes: Q queries, N persons, F frames, D width of an embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from workflows.index.estimate import spread
from workflows.index.frames import decode_image, frame_ids_of, person_boxes, read_frames
from workflows.index.models import load_person_encoder
from workflows.plan.sample import timed
from workflows.search.queries import query_input
from workflows.search.recall import INDEX_COLUMNS, embedding_matrix
from workflows.search.steps import Search

if TYPE_CHECKING:
    from modeling.types import TargetInput

SAMPLE_FRAMES = 6  # where every frame is judged
SAMPLE_PARTS = 4  # of the index, where there is a shortlist
MOST_PER_QUERY = 3  # frames of a query then

Row = Mapping[str, Any]


@dataclass(frozen=True)
class SamplePairs:
    """Frames, and which queries would be judged on them."""

    part_of: Mapping[str, str]
    """Frames part by frame_id."""
    shortlisted: frozenset[tuple[str, str]] | None = None
    """(query_id, frame_id); None: every query on every frame."""

    def has(self, query_id: str, frame_id: str) -> bool:
        """Whether the search would judge this pair."""
        return self.shortlisted is None or (query_id, frame_id) in self.shortlisted


def sample_pairs(search: Search, queries: Sequence[Row]) -> SamplePairs:
    """Pairs of a few queries: frames from all over the archive, or what a shortlist of a little of it would hold."""
    if search.config.recall == "top" and (persons := _sample_persons(search)).num_rows:
        return _sample_shortlist(search, queries, persons)
    frames = search.searched(search.archive.frames)
    parts = spread(frames, SAMPLE_FRAMES)
    part_of: dict[str, str] = {}
    for number, part in enumerate(parts):
        per_part = SAMPLE_FRAMES // len(parts) + (number < SAMPLE_FRAMES % len(parts))
        ids = frame_ids_of(frames.folder, part.name)
        chosen = {ids[int(place)] for place in np.linspace(0, len(ids) - 1, per_part + 2)[1:-1]} or {ids[0]}
        part_of |= dict.fromkeys(sorted(chosen), part.name)
    return SamplePairs(part_of)


def read_targets(search: Search, sample: SamplePairs) -> "tuple[list[TargetInput], float]":
    """The frames of a sample, and the seconds of decoding one."""
    from modeling.types import TargetInput

    ids_of_part: dict[str, set[str]] = {}
    for frame_id, part in sample.part_of.items():
        ids_of_part.setdefault(part, set()).add(frame_id)
    targets, seconds = [], []
    for part, ids in ids_of_part.items():
        for table in read_frames(search.archive.frames.folder, part, frame_ids=ids):
            for frame in table.to_pylist():
                image, decode_s = timed(partial(decode_image, frame["image"], what=f"frame {frame['frame_id']!r}"))
                targets.append(TargetInput(frame["frame_id"], image, person_boxes(frame["persons"])))
                seconds.append(decode_s)
    return targets, float(np.median(seconds))


def _sample_persons(search: Search) -> pa.Table:
    """Persons of a few index parts that may be searched."""
    index = search.searched(search.archive.index)
    condition = search.frame_filter.expression()
    return pa.concat_tables(
        [index.folder.read_table(part.name, INDEX_COLUMNS, condition) for part in spread(index, SAMPLE_PARTS)]
    )


def _sample_shortlist(search: Search, queries: Sequence[Row], persons: pa.Table) -> SamplePairs:
    """Each query's best frames among these persons': as large a share of them as the shortlist is of the archive.

    Frames at random would show other people, and a search spends half its time on masks of the right ones.
    """
    frames_F, frame_N = np.unique(persons["frame_id"].to_numpy(), return_inverse=True)
    encoder = load_person_encoder(search.archive.encoder_model, device="cpu")
    cosines_QN = encoder.embed_queries([query_input(dict(row)) for row in queries]) @ embedding_matrix(persons).T
    share = search.shortlist_size / max(1, search.archive.num_frames)
    kept = min(MOST_PER_QUERY, max(1, round(share * len(frames_F))))
    shortlisted: set[tuple[str, str]] = set()
    for query, cosines_N in zip(queries, cosines_QN, strict=True):
        best_F = np.full(len(frames_F), -np.inf)
        np.maximum.at(best_F, frame_N, cosines_N)
        best_F[frames_F == query["frame_id"]] = -np.inf
        shortlisted |= {(query["query_id"], str(frame_id)) for frame_id in frames_F[np.argsort(-best_F)[:kept]]}
    parts = dict(zip(persons["frame_id"].to_pylist(), persons["frames_part"].to_pylist(), strict=True))
    return SamplePairs({frame_id: parts[frame_id] for _, frame_id in sorted(shortlisted)}, frozenset(shortlisted))
