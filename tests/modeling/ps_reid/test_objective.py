"""A training step on a small made-up batch: terms, gradients, and that the loss falls."""

from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from modeling.ps_reid.batches import Processor, QueryBatch, TargetBatch
from modeling.ps_reid.build import trainable_parts
from modeling.ps_reid.losses import LossTerms, LossWeights
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.objective import Truth, training_step
from tests.modeling.ps_reid.small_model import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    paper_config,
    ragged_queries,
    ragged_targets,
    small_model,
)

NUM_QUERIES, NUM_TARGETS = 3, 4


def batch_of(model: PsReid) -> tuple[QueryBatch, TargetBatch, Truth]:
    """Three queries on four frames. Query q is the first detected person of frame q % 2, else absent."""
    processor = Processor(model.config, model.vision, model.template)
    targets = [ragged_targets()[i] for i in (0, 2, 1, 4)]
    target_batch = processor.targets(targets)
    is_positive = torch.zeros(NUM_TARGETS, NUM_QUERIES, dtype=torch.bool)
    boxes = torch.zeros(NUM_TARGETS, NUM_QUERIES, 4)
    frame = torch.tensor([FRAME_WIDTH, FRAME_HEIGHT, FRAME_WIDTH, FRAME_HEIGHT])
    for query in range(NUM_QUERIES):
        target = query % 2
        is_positive[target, query] = True
        boxes[target, query] = torch.from_numpy(targets[target].boxes_xyxy_px[0]) / frame
    first_of_its_frame = torch.cat([torch.ones(1), target_batch.owner_C.diff()]).bool()
    owner_is_right = target_batch.owner_C[None] == torch.arange(NUM_QUERIES)[:, None] % 2
    truth = Truth(
        is_positive_NQ=is_positive,
        boxes_NQ4=boxes,
        is_same_QC=first_of_its_frame[None] & owner_is_right,
        mask_pairs_A2=torch.tensor([[0, 0], [1, 1], [0, 2]]),
        masks_Ahw=_masks(model, 3),
        sam_pixels_F3HW=torch.randn(2, 3, 64, 64, generator=torch.manual_seed(1)),
        sam_frame_A=torch.tensor([0, 1, 0]),
        content_HW=(36, 64),
    )
    return processor.queries(list(ragged_queries().values())[:NUM_QUERIES]), target_batch, truth


def _masks(model: PsReid, count: int) -> Tensor:
    """Rectangles at SAM's low resolution."""
    side = model.segmentation.image_size // 2
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for number in range(count):
        masks[number, 2 : 10 + number, 3 + 2 * number : 12 + 2 * number] = True
    return masks


def trained(model: PsReid) -> list[torch.nn.Parameter]:
    """What the second stage trains, and the adapters."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    lora = [p for name, p in model.named_parameters() if "lora_" in name]
    parts = [p for part in trainable_parts(model).values() for p in part.parameters()]
    return [p.requires_grad_() for p in (*lora, *parts)]


def test_every_term_is_finite_and_reaches_what_it_should() -> None:
    model = small_model()
    parameters = trained(model)
    terms = training_step(model, *batch_of(model), LossWeights()).terms
    assert all(torch.isfinite(getattr(terms, f.name)) and getattr(terms, f.name) > 0 for f in fields(LossTerms))
    terms.total(LossWeights()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in parameters)
    without = {name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    left_idle = {name for name in without if "mask_decoder" not in name}
    assert left_idle == set(), "these parameters are trained but no loss moves them"


def test_the_loss_falls_on_one_batch() -> None:
    model = small_model()
    parameters = trained(model)
    batch, weights = batch_of(model), LossWeights()
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    totals = []
    for _ in range(20):
        terms = training_step(model, *batch, weights).terms
        total = terms.total(weights)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert np.isfinite(totals).all()
    assert totals[-1] < 0.5 * totals[0]


def test_a_batch_of_nothing_but_negatives_trains() -> None:
    """Most pairs of an archive are [REJ]; a batch may hold no positive, no mask and no close-up."""
    model = small_model()
    trained(model)
    queries, targets, truth = batch_of(model)
    nothing = replace(
        truth,
        is_positive_NQ=torch.zeros_like(truth.is_positive_NQ),
        is_same_QC=truth.is_same_QC[:, :0],
        mask_pairs_A2=truth.mask_pairs_A2[:0],
        masks_Ahw=truth.masks_Ahw[:0],
        sam_pixels_F3HW=truth.sam_pixels_F3HW[:0],
        sam_frame_A=truth.sam_frame_A[:0],
    )
    empty = replace(
        targets,
        close_ups_C3HW=targets.close_ups_C3HW[:0],
        owner_C=targets.owner_C[:0],
        boxes_C4=targets.boxes_C4[:0],
    )
    terms = training_step(model, queries, empty, nothing, LossWeights()).terms
    total = terms.total(LossWeights())
    total.backward()
    assert torch.isfinite(total)
    assert terms.text > 0
    assert [getattr(terms, name).item() for name in ("reid", "wbce", "dice", "smooth_l1", "ciou", "grounding")] == [
        0.0
    ] * 6


def test_the_papers_shape_trains() -> None:
    model = small_model(paper_config())
    trained(model)
    queries, targets, truth = batch_of(model)
    output = training_step(model, queries, targets, replace(truth, is_same_QC=truth.is_same_QC[:, :0]), LossWeights())
    assert output.decisions.grounding_NQK is None
    assert output.terms.grounding == 0 and output.terms.metric == 0
    total = output.terms.total(LossWeights())
    total.backward()
    assert torch.isfinite(total) and output.terms.ciou > 0


def test_wrong_answers_cost_more_than_right_ones() -> None:
    """The text term asks for [SEG] on positives and [REJ] on negatives: swapping the truth raises or lowers it."""
    model = small_model()
    queries, targets, truth = batch_of(model)
    with torch.no_grad():
        decisions = training_step(model, queries, targets, truth, LossWeights()).decisions
        as_judged = replace(truth, is_positive_NQ=decisions.scores_NQ > 0)
        against = replace(truth, is_positive_NQ=decisions.scores_NQ <= 0)
        right, wrong = (
            training_step(model, queries, targets, t, LossWeights()).terms.text for t in (as_judged, against)
        )
    assert right < wrong
