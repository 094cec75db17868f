"""The top-k kernel against a full sort in plain Python, with ties, exclusions, every block size and every fast pass."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling import topk, topk_filter
from modeling.topk import cosine_scores, top_k_frames
from modeling.topk_filter import RowFilter, choose_engine

torch.set_num_threads(1)


def unit_rows(rng: np.random.Generator, rows: int, dim: int) -> torch.Tensor:
    values = rng.normal(size=(rows, dim))
    return torch.from_numpy((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16))


def oracle(queries, persons, frame_of_person, k, excluded):
    """Every pair scored in exact float64, every frame sorted by (score descending, ordinal)."""
    scores = (queries.double().numpy() @ persons.double().numpy().T).astype(np.float32)
    answers = []
    for row, forbidden in zip(scores, excluded, strict=True):
        best: dict[int, tuple[float, int]] = {}
        for person, frame in enumerate(frame_of_person.tolist()):
            if frame not in best or row[person] > best[frame][0]:
                best[frame] = (float(row[person]), person)
        ranked = sorted((-score, frame, person) for frame, (score, person) in best.items() if frame != forbidden)
        answers.append([(frame, person, -score) for score, frame, person in ranked[:k]])
    return answers


def as_lists(found):
    rows = zip(found.frames_QK.tolist(), found.persons_QK.tolist(), found.scores_QK.tolist(), strict=True)
    return [[(f, p, s) for f, p, s in zip(*row, strict=True) if f >= 0] for row in rows]


@pytest.mark.parametrize("block_frames", [1, 3, 16, 2048])
@pytest.mark.parametrize("k", [1, 7, 60, 500])
def test_equals_a_full_sort(block_frames: int, k: int) -> None:
    rng = np.random.default_rng(k)
    persons, queries = unit_rows(rng, 200, 32), unit_rows(rng, 9, 32)
    persons[50:90] = persons[:40]  # the same picture in other frames: exact ties
    queries[0] = persons[3]
    frame_of_person = torch.from_numpy(np.sort(rng.integers(0, 61, size=200)))
    excluded = torch.tensor([int(frame_of_person[3]), -1, 5, 6, -1, 0, 60, -1, 11])
    found = top_k_frames(
        queries, persons, frame_of_person, num_frames=61, k=k, excluded_frame_Q=excluded, block_frames=block_frames
    )
    assert as_lists(found) == oracle(queries, persons, frame_of_person, k, excluded.tolist())


def test_ties_go_to_the_lower_ordinal_and_negative_scores_are_ordered() -> None:
    person = torch.tensor([[1.0, 0.0]]).half()
    persons = torch.cat([-person, person, person, person * 0, person])
    found = top_k_frames(person, persons, torch.tensor([0, 1, 1, 2, 3]), num_frames=4, k=4)
    assert found.frames_QK.tolist() == [[1, 3, 2, 0]]
    assert found.persons_QK.tolist() == [[1, 4, 3, 0]]
    assert found.scores_QK.tolist() == [[1.0, 1.0, 0.0, -1.0]]


def test_scores_do_not_depend_on_their_neighbours() -> None:
    """The exact dot product: alone, in a block, in another order, the same bits."""
    rng = np.random.default_rng(0)
    persons, queries = unit_rows(rng, 97, 768), unit_rows(rng, 5, 768)
    together = cosine_scores(queries, persons)
    alone = torch.cat([cosine_scores(queries[2:3], persons[i : i + 1]) for i in range(97)], dim=1)
    shuffled = torch.from_numpy(rng.permutation(768))
    assert torch.equal(together[2:3], alone)
    assert torch.equal(together, cosine_scores(queries[:, shuffled], persons[:, shuffled]))


def test_fewer_candidates_than_k_and_none_at_all() -> None:
    person = torch.tensor([[1.0, 0.0]]).half()
    found = top_k_frames(person, person, torch.tensor([2]), num_frames=5, k=3, excluded_frame_Q=torch.tensor([-1]))
    assert found.frames_QK.tolist() == [[2, -1, -1]]
    assert as_lists(top_k_frames(person, person[:0], torch.tensor([], dtype=torch.int64), num_frames=0, k=3)) == [[]]
    assert as_lists(top_k_frames(person[:0], person, torch.tensor([0]), num_frames=1, k=3)) == []


ENGINES = ("float16 vectors", "bfloat16", "float32")


def crowded_rows(rng: np.random.Generator, rows: int, dim: int) -> torch.Tensor:
    """Unit rows of which many are equal or differ in the last bit of one number: what an approximation mixes up."""
    persons = unit_rows(rng, rows, dim)
    for row in range(1, rows, 2):
        persons[row] = persons[int(rng.integers(0, row))]
        if rng.random() < 0.5:
            place = int(rng.integers(0, dim))
            persons[row, place] = torch.nextafter(persons[row, place], torch.tensor(2.0).half())
    return persons


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    engine=st.sampled_from(ENGINES),
    num_queries=st.integers(1, 6),
    num_persons=st.integers(1, 120),
    dim=st.sampled_from([1, 7, 64]),
    k=st.integers(1, 12),
    block_frames=st.integers(1, 40),
)
def test_a_fast_pass_never_changes_the_result(
    seed: int, engine: str, num_queries: int, num_persons: int, dim: int, k: int, block_frames: int
) -> None:
    rng = np.random.default_rng(seed)
    persons = crowded_rows(rng, num_persons, dim)
    queries = torch.cat([persons[rng.integers(0, num_persons, num_queries)], unit_rows(rng, 1, dim)])
    frame_of_person = torch.from_numpy(np.sort(rng.integers(0, num_persons, num_persons)))
    excluded = torch.from_numpy(rng.integers(-1, num_persons, num_queries + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk_filter, "choose_engine", lambda num_queries: engine)
        patch.setattr(topk, "MOST_SURVIVORS", 1.0)  # no way around the fast pass
        patch.setattr(topk, "BLOCK_FRAMES", 1)
        found = top_k_frames(
            queries, persons, frame_of_person,
            num_frames=num_persons, k=k, excluded_frame_Q=excluded, block_frames=block_frames,
        )  # fmt: skip
    assert as_lists(found) == oracle(queries, persons, frame_of_person, min(k, num_persons), excluded.tolist())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dim", [64, 512, 2048])
def test_the_fast_pass_keeps_every_pair_that_reaches_the_threshold(engine: str, dim: int) -> None:
    """With the score of each pair in turn as the threshold: the narrowest case there is."""
    rng = np.random.default_rng(dim)
    persons = crowded_rows(rng, 400, dim)
    queries = persons[:5].clone()
    exact = cosine_scores(queries, persons)
    one_pass = RowFilter(queries, engine=engine)
    for column in range(0, 400, 7):
        kept = one_pass.survivors(persons, exact[:, column])
        pairs = set(zip(kept.queries.tolist(), kept.rows.tolist(), strict=True))
        assert pairs >= {tuple(pair) for pair in (exact >= exact[:, column, None]).nonzero().tolist()}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_bound_holds_for_the_worst_rounding(engine: str) -> None:
    """Every number lies just below the middle of two bfloat16 numbers, so that all errors have one sign."""
    row = torch.full((1, 256), 1 / 16).half()
    row += 2.0**-4 * (2.0**-8 - 2.0**-10)
    row /= row.double().norm() / 1.0004
    exact = float(cosine_scores(row, row))
    one_pass = RowFilter(row, engine=engine)
    approximate = float(one_pass._scores(row))
    rounding = {"float16 vectors": 2.0**-11, "bfloat16": 2.0**-8, "float32": 0.0}[engine]
    assert abs(exact - approximate) <= float(one_pass.error_Q) + rounding
    assert len(one_pass.survivors(row, torch.tensor([exact])).rows) == 1


def test_few_queries_convert_nothing() -> None:
    assert choose_engine(1) in ("float16 vectors", "float32")
    assert choose_engine(64) in ("bfloat16", "float32")


def test_an_archive_sorted_from_worst_to_best_is_no_special_case() -> None:
    """Every block beats all before it, so that the fast pass rejects nothing."""
    rng = np.random.default_rng(5)
    persons, query = unit_rows(rng, 3000, 16), unit_rows(rng, 4, 16)
    persons = persons[cosine_scores(query[:1], persons)[0].argsort()]
    frames = torch.arange(3000)
    found = top_k_frames(query, persons, frames, num_frames=3000, k=10, block_frames=64)
    assert as_lists(found) == oracle(query, persons, frames, 10, [-1] * 4)
