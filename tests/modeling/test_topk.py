"""The top-k kernel against a full sort in plain Python, with ties, exclusions and every block size."""

import numpy as np
import pytest
import torch

from modeling.topk import cosine_scores, top_k_frames

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
