"""Which terms a step has, and that each of them teaches what it should."""

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F

from modeling.instruct_reid.attributes import attribute_labels
from modeling.instruct_reid.instructions import TASKS, Task
from modeling.instruct_reid.losses import (
    adaptive_triplet_loss,
    attribute_loss,
    hard_label_loss,
    relatedness,
    soft_label_loss,
)
from modeling.instruct_reid.objective import IrmBatch, IrmLossSettings, IrmLossTerms, IrmObjective
from tests.modeling.instruct_reid.small_irm import small_irm, some_instructions, some_pixels

torch.set_num_threads(1)
IDENTITIES = torch.tensor([0, 0, 3, 3, 5, 5])


def _objective(kind: str, **settings: object) -> IrmObjective:
    return IrmObjective(small_irm(kind, edits=kind == "irm"), 8, IrmLossSettings(**settings))  # type: ignore[arg-type]


def _batch(objective: IrmObjective, task: Task) -> IrmBatch:
    instructions = objective.irm.instruction.prepare(some_instructions(6))
    return IrmBatch(task, some_pixels(6), instructions, torch.tensor([True, False] * 3), IDENTITIES)


def _present(terms: IrmLossTerms) -> set[str]:
    return {field.name for field in fields(terms) if getattr(terms, field.name) != 0}


@pytest.mark.parametrize("task", TASKS)
def test_terms_of_irm(task: Task) -> None:
    objective = _objective("irm")
    terms = objective(_batch(objective, task))
    assert _present(terms) == ({"contrast", "match"} if task == "T2I" else {"identity", "triplet"})


@pytest.mark.parametrize("task", TASKS)
def test_terms_of_irm_plus_plus(task: Task) -> None:
    objective = _objective("irm++")
    expected = {"identity", "hard"} | ({"soft"} if task in ("CTCC", "LI", "T2I") else set())
    expected |= {"contrast", "match"} if task == "T2I" else set()
    assert _present(objective(_batch(objective, task))) == expected


def test_the_baseline_has_triplets_in_place_of_banks() -> None:
    objective = _objective("irm++", supervision="triplet")
    assert objective.retrieval_bank is None
    assert _present(objective(_batch(objective, "LI"))) == {"identity", "triplet"}


def test_queries_and_gallery_pictures_of_a_batch_find_each_other() -> None:
    settings = {"supervision": "triplet", "alpha": 0.0, "contrast_temperature": 0.5}
    objective = _objective("irm++", in_batch=2.0, **settings)
    batch, irm = _batch(objective, "Trad"), objective.irm
    tokens = irm.image_tokens(batch.pixels)
    asks = batch.is_query
    gallery = F.normalize(tokens[~asks, 0], dim=1)
    queries = F.normalize(irm.fuse(tokens, irm.encode_instructions(batch.instructions))[asks], dim=1)
    expected = torch.zeros(())
    for one, other in ((gallery, queries), (queries, gallery)):
        for row in range(3):  # the identity of row i is that of column i alone
            logits = one[row] @ other.T / 0.5
            expected = expected + (torch.logsumexp(logits, 0) - logits[row]) / 3 / 2
    terms = objective(batch)
    torch.testing.assert_close(terms.contrast, 2 * expected)
    assert _present(terms) == {"identity", "contrast"}


@pytest.mark.parametrize("kind", ["irm", "irm++"])
def test_attributes_of_the_picture_and_of_what_is_asked(kind: str) -> None:
    objective = _objective(kind, attributes=2.0)
    plain, irm = _batch(objective, "LI"), objective.irm
    shown, wanted = (torch.tensor([attribute_labels({"gender": who})] * 6) for who in ("man", "woman"))
    batch = replace(plain, shown=shown, wanted=wanted)
    assert objective.describe is not None and objective(plain).attributes == 0  # nothing is known
    instruction = irm.encode_instructions(batch.instructions)
    asks = batch.is_query if kind == "irm++" else torch.ones(6, dtype=torch.bool)
    tokens = irm.image_tokens(batch.pixels, instruction if kind == "irm" else None)
    answers = irm.fuse(tokens[asks], instruction.rows(asks))
    expected = attribute_loss(objective.describe(tokens[:, 0]), shown)
    expected = expected + attribute_loss(objective.describe(answers), wanted[asks])
    torch.testing.assert_close(objective(batch).attributes, 2 * expected)
    told = replace(_batch(objective, "T2I"), shown=shown, wanted=wanted)
    picture = attribute_loss(objective.describe(irm.image_tokens(told.pixels)[:, 0]), shown)
    torch.testing.assert_close(objective(told).attributes, 2 * picture)


def test_equation_9() -> None:
    objective = _objective("irm", alpha=3.0, margin=0.2)
    batch, irm = _batch(objective, "LI"), objective.irm
    instruction = irm.encode_instructions(batch.instructions)
    tokens = irm.image_tokens(batch.pixels, instruction)
    related = relatedness(IDENTITIES, instruction.feature_BI)
    expected = torch.zeros(())
    for feature, head in (
        (tokens[:, 0], objective.identify),
        (irm.fuse(tokens, instruction), objective.identify_fused),
    ):
        assert head is not None
        expected = expected + head(feature, IDENTITIES)
        expected = expected + 3 * adaptive_triplet_loss(F.normalize(feature, dim=1), related, margin=0.2)
    torch.testing.assert_close(objective(batch).total, expected)


def test_equation_14_and_the_order_of_loss_and_storing() -> None:
    objective = _objective("irm++", beta=5.0)
    batch, irm = _batch(objective, "CTCC"), objective.irm
    bank_r, bank_a = objective.retrieval_bank, objective.auxiliary_banks["CTCC"]
    assert bank_r is not None
    instruction = irm.encode_instructions(batch.instructions)
    tokens = irm.image_tokens(batch.pixels)
    retrieval = torch.where(batch.is_query[:, None], irm.fuse(tokens, instruction), tokens[:, 0])
    similar, auxiliary = bank_r.similarity(retrieval), bank_a.similarity(instruction.feature_BI)
    expected = (
        objective.identify(retrieval, IDENTITIES)
        + soft_label_loss(auxiliary, similar, temperature=0.05)
        + 5 * hard_label_loss(IDENTITIES, similar, temperature=0.05)
    )
    torch.testing.assert_close(objective(batch).total, expected)
    torch.testing.assert_close(bank_r.features_ND[IDENTITIES[[1, 3, 5]]], F.normalize(retrieval[[1, 3, 5]], dim=1))
    words = instruction.feature_BI[[1, 3, 5]]
    torch.testing.assert_close(bank_a.features_ND[IDENTITIES[[1, 3, 5]]], F.normalize(words, dim=1))
    untouched = objective.auxiliary_banks["LI"].features_ND[0]
    assert not torch.allclose(untouched, bank_a.features_ND[0])


def test_banks_store_what_all_workers_saw() -> None:
    objective = _objective("irm++")
    batch = _batch(objective, "Trad")
    foreign = torch.full((1, objective.irm.config.image.width), 2.0)
    objective(batch, lambda f, i: (torch.cat([f, foreign.to(f)]), torch.cat([i, torch.tensor([7])])))
    assert objective.retrieval_bank is not None
    stored = objective.retrieval_bank.features_ND[7]
    torch.testing.assert_close(stored, F.normalize(foreign, dim=1)[0])


@pytest.mark.parametrize("kind", ["irm", "irm++"])
def test_a_few_steps_over_all_tasks_lower_the_loss_and_reach_every_weight(kind: str) -> None:
    objective = _objective(kind)
    batches = [_batch(objective, task) for task in TASKS]
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    totals, touched = [], set()
    for _ in range(6):
        optimizer.zero_grad()
        total = sum((objective(batch).total for batch in batches), torch.zeros(()))
        total.backward()
        touched |= {name for name, p in objective.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]
    unused = {name for name, _ in objective.named_parameters()} - touched
    assert not unused


def test_a_fixed_instruction_encoder_gets_no_gradient() -> None:
    irm = small_irm("irm++")
    words = irm.config.instruction.model_copy(update={"is_fixed": True, "source": "published"})
    irm.config = irm.config.model_copy(update={"instruction": words})
    objective = IrmObjective(irm, 8, IrmLossSettings())
    objective(_batch(objective, "LI")).total.backward()
    assert all(parameter.grad is None for parameter in irm.instruction.parameters())


def test_every_task_gives_every_weight_a_gradient() -> None:
    for task in TASKS:
        objective = _objective("irm++")
        objective(_batch(objective, task)).total.backward()
        assert all(parameter.grad is not None for parameter in objective.parameters())
