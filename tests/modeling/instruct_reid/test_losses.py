"""The losses against slow references and cases computed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from modeling.errors import DataError
from modeling.instruct_reid.attributes import ATTRIBUTES, LABEL_COUNTS, UNKNOWN_LABEL, attribute_labels
from modeling.instruct_reid.losses import (
    IdentityClassifier,
    adaptive_triplet_loss,
    attribute_loss,
    contrastive_loss,
    hard_label_loss,
    hardest_strangers,
    matching_loss,
    relatedness,
    soft_label_loss,
)
from modeling.instruct_reid.memory_bank import MemoryBank
from tests.modeling.instruct_reid import slow_losses as slow


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_adaptive_triplet_equals_the_formula(seed: int) -> None:
    features, instructions = _random(7, 3, seed=seed), _random(7, 4, seed=seed + 100)
    identities = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    related = relatedness(identities, instructions)
    costs = slow.triplet_costs(features.tolist(), identities.tolist(), instructions.tolist(), margin=0.3)
    mean = sum(cost for _, cost in costs) / len(costs)
    assert adaptive_triplet_loss(features, related, margin=0.3, mining="all").item() == pytest.approx(mean, rel=1e-5)
    worst = [max(cost for a, cost in costs if a == anchor) for anchor in sorted({a for a, _ in costs})]
    hard = adaptive_triplet_loss(features, related, margin=0.3, mining="hard").item()
    assert hard == pytest.approx(sum(worst) / len(worst), rel=1e-5)


def test_two_references_of_one_person_are_ordered_by_their_instructions() -> None:
    features = torch.tensor([[0.0], [1.0], [2.0]])
    related = torch.tensor([[1.0, 0.25, 0.75], [0.25, 1.0, 0.0], [0.75, 0.0, 1.0]])
    # Anchor 0: r1 = sample 2 (0.75), r2 = sample 1 (0.25): 4 + 0.5 * 0.2 - 1 = 3.1
    # Anchor 1: r1 = sample 0 (0.25), r2 = sample 2 (0): 1 + 0.25 * 0.2 - 1 = 0.05
    # Anchor 2: r1 = sample 0 (0.75), r2 = sample 1 (0): 4 + 0.75 * 0.2 - 1 = 3.15
    expected = (3.1 + 0.05 + 3.15) / 3
    assert adaptive_triplet_loss(features, related, margin=0.2).item() == pytest.approx(expected)


def test_plain_relatedness_gives_the_batch_hard_triplet_loss() -> None:
    features, identities = _random(8, 3), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    distance = torch.cdist(features, features).square()
    same = identities[:, None] == identities
    positive = distance.masked_fill(~same, 0).amax(1)
    negative = distance.masked_fill(same, math.inf).amin(1)
    expected = (positive + 0.3 - negative).clamp(min=0).mean()
    got = adaptive_triplet_loss(features, relatedness(identities, None), margin=0.3)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_equal_relatedness_costs_nothing_and_keeps_a_gradient() -> None:
    features = _random(4, 3).requires_grad_()
    loss = adaptive_triplet_loss(features, torch.ones(4, 4))
    loss.backward()
    assert loss.item() == 0 and features.grad is not None


def test_relatedness_is_zero_for_strangers_and_for_opposite_instructions() -> None:
    related = relatedness(torch.tensor([0, 0, 0, 1]), torch.tensor([[1.0, 0], [1, 1], [-1, 0], [1, 0]]))
    torch.testing.assert_close(related[0], torch.tensor([1.0, math.sqrt(0.5), 0.0, 0.0]))


def test_identity_loss_is_cross_entropy_of_scaled_cosines() -> None:
    classifier = IdentityClassifier(3, 5, scale=20.0)
    features, identity = _random(4, 3), torch.tensor([0, 4, 2, 2])
    logits = [[20 * slow.cosine(f, w) for w in classifier.weight.tolist()] for f in features.tolist()]
    expected = -sum(math.log(slow.softmax(row, 1.0)[i]) for row, i in zip(logits, identity.tolist(), strict=True)) / 4
    assert classifier(features, identity).item() == pytest.approx(expected, rel=1e-5)


def test_contrast_equals_the_slow_one() -> None:
    images, texts, identities = _random(5, 3), _random(5, 3, seed=1), [0, 1, 1, 2, 3]
    expected = slow.contrast(images.tolist(), texts.tolist(), identities, 0.1)
    assert contrastive_loss(images, texts, torch.tensor(identities), 0.1).item() == pytest.approx(expected, rel=1e-5)


def test_matching_names_the_second_class_a_pair() -> None:
    logits = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
    wrong, right = math.log(1 + math.exp(2)), math.log(1 + math.exp(-2))
    assert matching_loss(logits, torch.tensor([True, False])).item() == pytest.approx((wrong + right) / 2)


def test_attributes_are_named_one_by_one_and_unknown_ones_not_at_all() -> None:
    logits = _random(3, sum(LABEL_COUNTS))
    man = attribute_labels({"gender": "man", "hat": "cap", "hat tone": "dark"}, but={"hat tone"})
    labels = torch.tensor([man, attribute_labels({}), attribute_labels({"gender": "woman", "bag": "handbag"})])
    assert (labels[1] == UNKNOWN_LABEL).all()
    names, costs, start = list(ATTRIBUTES), [], 0
    assert [man[names.index(n)] for n in ("gender", "hat", "hat tone", "bag")] == [1, 1, UNKNOWN_LABEL, 0]
    for number, count in enumerate(LABEL_COUNTS):
        for row in range(3):
            label = int(labels[row, number])
            if label != UNKNOWN_LABEL:
                costs.append(-math.log(slow.softmax(logits[row, start : start + count].tolist(), 1.0)[label]))
        start += count
    assert len(costs) == 2 * len(ATTRIBUTES) - 1
    assert attribute_loss(logits, labels).item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)
    assert attribute_loss(logits[:1], labels[1:2]).item() == 0
    with pytest.raises(DataError, match=r"hat.*crown.*the taxonomy has: cap"):
        attribute_labels({"hat": "crown"})


def test_hardest_strangers() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.7, 0.9, 0.2], [0.3, 0.1, 0.9]])
    assert hardest_strangers(similarity, torch.tensor([0, 0, 1])).tolist() == [2, 2, 0]
    assert hardest_strangers(similarity, torch.tensor([5, 5, 5])).tolist() == [0, 1, 2]


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_soft_labels_equal_the_formulas(temperature: float) -> None:
    auxiliary, retrieval = _random(3, 6).tanh(), _random(3, 6, seed=1).tanh()
    pairs = [
        (slow.softmax(a, temperature), slow.softmax(r, temperature))
        for a, r in zip(auxiliary.tolist(), retrieval.tolist(), strict=True)
    ]
    expected = sum(slow.divergence(p, q) for p, q in pairs) / 3
    got = soft_label_loss(auxiliary, retrieval, temperature=temperature).item()
    assert got == pytest.approx(expected, rel=1e-4)
    literal = sum(slow.printed(p, q, 1e-8) for p, q in pairs) / 3
    got = soft_label_loss(auxiliary, retrieval, temperature=temperature, form="printed").item()
    assert got == pytest.approx(literal, rel=1e-4) and got < 0 < expected


@pytest.mark.parametrize("form", ["kl", "printed"])
def test_hard_labels_equal_the_formulas(form: str) -> None:
    retrieval, identity = _random(3, 4).tanh(), [1, 3, 0]
    expected = 0.0
    for row, true in zip(retrieval.tolist(), identity, strict=True):
        share, one_hot = slow.softmax(row, 0.5), [float(n == true) for n in range(4)]
        if form == "kl":
            expected += slow.divergence(one_hot, share)
        else:
            expected += slow.printed(slow.softmax(one_hot, 0.5), share, 1e-8)
    got = hard_label_loss(torch.tensor(identity), retrieval, temperature=0.5, form=form).item()  # type: ignore[arg-type]
    assert got == pytest.approx(expected / 3, rel=1e-4)


def test_minimising_the_printed_form_drives_distributions_apart() -> None:
    auxiliary = torch.tensor([[2.0, 0.0, 0.0]])
    like, unlike = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0]])
    near, far = (soft_label_loss(auxiliary, r, temperature=1.0).item() for r in (like, unlike))
    assert near == pytest.approx(0, abs=1e-6) and far > 1
    near, far = (soft_label_loss(auxiliary, r, temperature=1.0, form="printed").item() for r in (like, unlike))
    assert far < near


def test_soft_labels_teach_the_retrieval_feature_only() -> None:
    auxiliary, retrieval = _random(2, 4).requires_grad_(), _random(2, 4, seed=1).requires_grad_()
    soft_label_loss(auxiliary, retrieval, temperature=0.5).backward()
    assert auxiliary.grad is None and retrieval.grad is not None


def test_a_bank_keeps_the_last_feature_of_each_identity() -> None:
    bank = MemoryBank(4, 3, seed=1)
    before = bank.features_ND.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(4))
    features = torch.tensor([[2.0, 0, 0], [0, 3, 0], [0, 0, 5]], requires_grad=True)
    bank.store(features, torch.tensor([2, 0, 2]))
    torch.testing.assert_close(bank.features_ND[2], torch.tensor([0.0, 0, 1]))
    torch.testing.assert_close(bank.features_ND[0], torch.tensor([0.0, 1, 0]))
    torch.testing.assert_close(bank.features_ND[[1, 3]], before[[1, 3]])
    assert not bank.features_ND.requires_grad
    similarity = bank.similarity(features)
    torch.testing.assert_close(similarity[0], F.cosine_similarity(features[:1], bank.features_ND))
