"""A training step on a small made-up batch: terms, gradients, and that the loss falls."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from modeling.ps_reid.batches import Processor, QueryBatch, TargetBatch
from modeling.ps_reid.build import trainable_parts
from modeling.ps_reid.losses import LossTerms, LossWeights
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.objective import Truth, captioning, training_step
from tests.modeling.ps_reid.small_model import (
    FRAME_HEIGHT,
    FRAME_WIDTH,
    paper_config,
    ragged_queries,
    ragged_targets,
    small_config,
    small_model,
)

NUM_QUERIES, NUM_TARGETS = 3, 4


def batch_of(model: PsReid) -> tuple[QueryBatch, TargetBatch, Truth]:
    """Three queries on four frames. Query q is the first detected person of frame q % 2, else absent."""
    processor = Processor(model.config, model.vision, model.template, model.metric)
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
        picture_A=torch.tensor([0, 1, 0]),
        squares_A4=torch.tensor([0.0, 0.0, 1.0, 64 / 36]).expand(3, 4),
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


def test_masks_are_learned_from_windows() -> None:
    """A predicted box far from the window, as at the start of training, leaves the terms finite."""
    model = small_model(small_config(zoom=1.5))
    trained(model)
    queries, targets, truth = batch_of(model)
    windows = torch.tensor([[0.1, -0.2, 0.5, 0.5], [0.0, 0.0, 1.0, 1.8], [-0.3, 0.5, 0.001, 1.2]])
    seen = replace(truth, squares_A4=windows, masks_Ahw=truth.masks_Ahw * 0.7)
    terms = training_step(model, queries, targets, seen, LossWeights()).terms
    (terms.wbce + terms.dice).backward()
    assert torch.isfinite(terms.wbce) and torch.isfinite(terms.dice)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


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
        picture_A=truth.picture_A[:0],
        squares_A4=truth.squares_A4[:0],
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


def joint_model() -> PsReid:
    """As the paper's presets: causal attention over the whole pair."""
    return small_model(small_config().model_copy(update={"attention": "joint"}))


def test_a_joint_model_is_trained_as_it_judges() -> None:
    """The grid of a training step is each query judged alone, its prefix in front of every target."""
    model = joint_model()
    queries, targets, truth = batch_of(model)
    with torch.no_grad():
        grid = training_step(model, queries, targets, truth, LossWeights()).decisions
        tokens = model.target_tokens(targets)
        for row in range(NUM_QUERIES):
            only = QueryBatch(
                queries.pixels_Q3HW[row : row + 1], queries.has_image_Q[row : row + 1], queries.text_ids[row : row + 1]
            )
            alone = model.decide_joint(model.encode_queries(only), tokens)
            torch.testing.assert_close(grid.scores_NQ[:, row], alone.scores_NQ[:, 0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(grid.boxes_NQ4[:, row], alone.boxes_NQ4[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [small_model, joint_model])
def test_recomputed_layers_give_the_same_gradient(make: Callable[[], PsReid]) -> None:
    gradients = []
    for recompute in (False, True):
        model = make()
        parameters = trained(model)
        model.recompute_activations = recompute
        training_step(model, *batch_of(model), LossWeights()).terms.total(LossWeights()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


class _OneOfTwo:
    """Shares as one of two processes sees them, the other's part known beforehand; writes down what it tells.

    Without the other's part it goes on alone.
    """

    def __init__(self, others: list[Tensor] | None, *, is_first: bool) -> None:
        self._others, self._is_first = None if others is None else iter(others), is_first
        self.told: list[Tensor] = []

    def gather(self, own: Tensor) -> Tensor:
        self.told.append(own.detach())
        if self._others is None:
            return own
        other = next(self._others)
        return torch.cat([own, other] if self._is_first else [other, own])

    def total(self, own: Tensor) -> Tensor:
        self.told.append(own.detach())
        return own.detach() if self._others is None else own.detach() + next(self._others)


def test_the_gradients_of_two_shares_add_up_to_the_batchs() -> None:
    model = small_model()
    parameters = trained(model)
    batch, weights = batch_of(model), LossWeights()
    training_step(model, *batch, weights).terms.total(weights).backward()
    whole = [None if p.grad is None else p.grad.clone() for p in parameters]
    model.zero_grad()
    halves = [_share_of_targets(*batch, rows) for rows in ([0, 1], [2, 3])]
    told: list[list[Tensor] | None] = [None, None]
    for _ in range(2):  # what a process tells second may depend on what it heard first
        both = [_OneOfTwo(told[1 - number], is_first=number == 0) for number in range(2)]
        with torch.no_grad():
            for half, shares in zip(halves, both, strict=True):
                training_step(model, *half, weights, shares)
        told = [shares.told for shares in both]
    for number, half in enumerate(halves):
        shares = _OneOfTwo(told[1 - number], is_first=number == 0)
        training_step(model, *half, weights, shares).terms.total(weights).backward()
    for expected, parameter in zip(whole, parameters, strict=True):
        if expected is not None:
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-4)


def _share_of_targets(
    queries: QueryBatch, targets: TargetBatch, truth: Truth, rows: list[int]
) -> tuple[QueryBatch, TargetBatch, Truth]:
    """The batch with some of its targets, in order."""
    chosen = torch.tensor(rows)
    is_own_C = torch.isin(targets.owner_C, chosen)
    own_pairs_A = torch.isin(truth.mask_pairs_A2[:, 0], chosen)
    pairs = truth.mask_pairs_A2[own_pairs_A].clone()
    pairs[:, 0] -= rows[0]
    share = TargetBatch(
        targets.scenes_N3HW[chosen], targets.close_ups_C3HW[is_own_C], targets.owner_C[is_own_C] - rows[0],
        targets.boxes_C4[is_own_C],
    )  # fmt: skip
    own = replace(
        truth,
        is_positive_NQ=truth.is_positive_NQ[chosen],
        boxes_NQ4=truth.boxes_NQ4[chosen],
        is_same_QC=truth.is_same_QC[:, is_own_C],
        mask_pairs_A2=pairs,
        masks_Ahw=truth.masks_Ahw[own_pairs_A],
        picture_A=truth.picture_A[own_pairs_A],
        squares_A4=truth.squares_A4[own_pairs_A],
    )
    return queries, share, own


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


@torch.no_grad()
def test_captions_are_learned_as_transformers_computes_an_answers_loss() -> None:
    """Against `LlamaForCausalLM` on one sequence at a time, with its own labels; pictures seen by both adapters."""
    model = small_model()
    crops = torch.randn(2, 3, model.config.vision.query_height_px, model.config.vision.query_width_px)
    texts = [model.template.text_ids(text) for text in ("a woman in a red coat", "a man")]
    features = model.vision(crops)
    sums, count = torch.zeros(()), 0
    for adapter in (model.query_adapter, model.target_adapter):
        for picture, ids in zip(adapter(features), texts, strict=True):
            answer = torch.cat([ids, torch.tensor([model.template.end_id])])
            before = torch.cat([model.words(model.template.system_ids), picture])
            labels = torch.cat([torch.full((len(before),), -100), answer])
            embeds = torch.cat([before, model.words(answer)])
            sums += model.language(inputs_embeds=embeds[None], labels=labels[None]).loss * len(answer)
            count += len(answer)
    torch.testing.assert_close(captioning(model, crops, texts), sums / count, rtol=1e-4, atol=1e-5)
