"""One training step's losses: a batch of queries, targets and truth in, the terms of eq. 8-13 out.

Every query of the batch is judged on every target, so B queries and B targets give B² supervised pairs (cheap in
separated mode). Several processes may share the targets of a batch (`shares.py`).

Shapes: Q queries, N targets, C close-ups of all targets together, A pairs whose mask is supervised, F pictures that SAM
sees for them (whole frames or windows), h w mask pixels, K candidates. Boxes are xyxy as shares of the frame's sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.ps_reid import losses
from modeling.ps_reid.attention import run_spans
from modeling.ps_reid.batches import QueryBatch, TargetBatch
from modeling.ps_reid.control_tokens import REJ, SEG
from modeling.ps_reid.losses import LossTerms, LossWeights
from modeling.ps_reid.model import Decisions, EncodedQueries, PsReid, TargetTokens
from modeling.ps_reid.prompt import pad_rows
from modeling.ps_reid.shares import Shares, WholeBatch
from modeling.ps_reid.windows import within

GOOD_OVERLAP = 0.5
"""IoU from which a close-up counts as showing the queried person."""


@dataclass(frozen=True)
class Truth:
    """Who is where."""

    is_positive_NQ: Tensor
    boxes_NQ4: Tensor
    """The queried person's box in each target; zeros where absent."""
    is_same_QC: Tensor
    """Whether each close-up shows the queried identity."""
    mask_pairs_A2: Tensor
    """(target, query) of the pairs whose mask is supervised; all are positive."""
    masks_Ahw: Tensor
    """Their truth at SAM's low resolution, over the whole square: the share of each pixel that is person."""
    sam_pixels_F3HW: Tensor
    """SAM's input for those pairs."""
    picture_A: Tensor
    """Which of those pictures each pair belongs to."""
    squares_A4: Tensor
    """The part of the frame that the picture's square shows; beyond the frame it is padding."""
    is_supervised_A: Tensor | None = None
    """False for pairs that only keep this process in step with others that have a mask to learn; None: all count."""


@dataclass(frozen=True)
class StepOutput:
    """Terms to weigh and sum, and the decisions for figures.

    With several processes, `COUPLED_TERMS` hold the batch's value, the others this process's part of it.
    """

    terms: LossTerms
    decisions: Decisions


COUPLED_TERMS = frozenset({"reid", "metric"})
WHOLE_BATCH = WholeBatch()


def training_step(
    model: PsReid,
    queries: QueryBatch,
    targets: TargetBatch,
    truth: Truth,
    weights: LossWeights,
    shares: Shares = WHOLE_BATCH,
) -> StepOutput:
    """All loss terms of one batch (eq. 8); with `shares`, targets and truth are this process's own."""
    encoded = model.encode_queries(queries)
    tokens = model.target_tokens(targets)
    decisions = model.decide_grid(encoded, tokens)
    wbce, dice = _mask_terms(model, decisions, truth, weights, shares)
    rows, columns = truth.is_positive_NQ.nonzero(as_tuple=True)
    boxes, true_boxes = decisions.boxes_NQ4[rows, columns], truth.boxes_NQ4[rows, columns]
    share_of_boxes = _share_of(len(rows), boxes, shares)
    terms = LossTerms(
        reid=_reid_term(encoded, decisions, truth.is_positive_NQ, weights, shares),
        text=_text_term(model, decisions, truth.is_positive_NQ, shares),
        wbce=wbce,
        dice=dice,
        smooth_l1=losses.smooth_l1_loss(boxes, true_boxes) * share_of_boxes,
        ciou=losses.ciou_loss(boxes, true_boxes) * share_of_boxes,
        metric=_metric_term(model, encoded, tokens, targets, truth, shares),
        grounding=_grounding_term(decisions, tokens, truth, shares),
    )
    return StepOutput(terms, decisions)


def _share_of(count: int, like: Tensor, shares: Shares) -> Tensor:
    """How much of all processes' things of a kind are this one's: turns its mean into its part of the whole mean."""
    own = like.new_tensor(float(count), dtype=torch.float32)
    return own / shares.total(own).clamp(min=1)


def _reid_term(
    encoded: EncodedQueries, decisions: Decisions, is_positive_NQ: Tensor, weights: LossWeights, shares: Shares
) -> Tensor:
    """Eq. 9-11: each query's own positives and negatives, over all targets of the batch."""
    return losses.reid_loss_of_distances(
        shares.gather(losses.reid_distances(encoded.qry_QD, decisions.states_NQD)),
        shares.gather(is_positive_NQ),
        tau=weights.tau,
        negatives=weights.negatives,
    )


def _text_term(model: PsReid, decisions: Decisions, is_positive_NQ: Tensor, shares: Shares) -> Tensor:
    """Eq. 12 on the one answer token, over the whole vocabulary; both answers weigh the same in sum."""
    words = model.language.get_output_embeddings()(decisions.states_NQD).float()
    logits = torch.cat([decisions.logits_NQ3, words], dim=-1)
    answers = torch.where(is_positive_NQ, SEG, REJ)
    weight = logits.new_ones(logits.shape[-1])
    positives = is_positive_NQ.sum().float()
    share = (shares.total(positives) / shares.total(torch.ones_like(is_positive_NQ).sum().float())).clamp(0.02, 0.98)
    weight[SEG], weight[REJ] = 0.5 / share, 0.5 / (1 - share)
    own_weight = weight[answers].sum()
    loss = losses.text_loss(logits, answers, weight_of_answer=weight)
    return loss * (own_weight / shares.total(own_weight))


def _metric_term(
    model: PsReid, encoded: EncodedQueries, tokens: TargetTokens, targets: TargetBatch, truth: Truth, shares: Shares
) -> Tensor:
    if not model.config.close_ups:
        return encoded.metric_QM.sum() * 0.0
    slots = torch.arange(len(targets.owner_C), device=targets.owner_C.device)
    slots = slots - torch.searchsorted(targets.owner_C, targets.owner_C)
    persons_CM = tokens.close_ups_NCM[targets.owner_C, slots]
    logits_QC = losses.metric_logits(encoded.metric_QM, persons_CM, model.metric.scale)
    return losses.metric_loss_of_logits(shares.gather(logits_QC.t()).t(), shares.gather(truth.is_same_QC.t()).t())


def _grounding_term(decisions: Decisions, tokens: TargetTokens, truth: Truth, shares: Shares) -> Tensor:
    """Positive pairs point to a close-up that overlaps the person well; where none does, to scene tokens on it."""
    if decisions.grounding_NQK is None:
        return decisions.logits_NQ3.sum() * 0.0
    rows, columns = truth.is_positive_NQ.nonzero(as_tuple=True)
    boxes_P4, candidates_PK4 = truth.boxes_NQ4[rows, columns], tokens.boxes_NK4[rows]
    num_close_ups = tokens.close_ups_NCM.shape[1]
    overlap_PC = _iou(candidates_PK4[:, :num_close_ups], boxes_P4[:, None])
    is_right_PC = overlap_PC >= GOOD_OVERLAP
    centers_PS2 = (candidates_PK4[:, num_close_ups:, :2] + candidates_PK4[:, num_close_ups:, 2:]) / 2
    inside_PS = ((centers_PS2 > boxes_P4[:, None, :2]) & (centers_PS2 < boxes_P4[:, None, 2:])).all(-1)
    is_right_PS = inside_PS & ~is_right_PC.any(1, keepdim=True)
    is_right_PK = torch.cat([is_right_PC, is_right_PS], dim=1)
    loss = losses.grounding_loss(decisions.grounding_NQK[rows, columns], is_right_PK)
    return loss * _share_of(int(is_right_PK.any(1).sum()), loss, shares)


def _mask_terms(
    model: PsReid, decisions: Decisions, truth: Truth, weights: LossWeights, shares: Shares
) -> tuple[Tensor, Tensor]:
    """Weighted BCE and Dice of the supervised pairs (eq. 13)."""
    if not len(truth.mask_pairs_A2):
        zero = decisions.logits_NQ3.sum() * 0.0 * _share_of(0, decisions.logits_NQ3, shares)
        return zero, zero
    rows, columns = truth.mask_pairs_A2.unbind(1)
    prompts_AE = model.mask_prompt(decisions.states_NQD[rows, columns])
    boxes_A4 = within(decisions.boxes_NQ4[rows, columns].detach().float(), truth.squares_A4)
    if model.segmentation.zoom is not None:  # the window lies around the true box, not around this one
        boxes_A4 = boxes_A4.clamp(0, 1)
    embeddings = model.segmentation.image_embeddings(truth.sam_pixels_F3HW)[truth.picture_A]
    logits_Ahw = model.segmentation.mask_logits(embeddings, prompts_AE, boxes_A4).float()
    masks_Ahw = truth.masks_Ahw
    if truth.is_supervised_A is not None:
        counts_A = truth.is_supervised_A
        idle = logits_Ahw[~counts_A].sum() * 0.0
        logits_Ahw, masks_Ahw = logits_Ahw[counts_A], masks_Ahw[counts_A]
    else:
        idle = logits_Ahw.new_zeros(())
    share = _share_of(len(logits_Ahw), logits_Ahw, shares)
    if not len(logits_Ahw):
        return idle, idle
    bce = losses.weighted_bce_loss(logits_Ahw, masks_Ahw, foreground=weights.foreground)
    return bce * share + idle, losses.dice_loss(logits_Ahw, masks_Ahw) * share


def crop_contrast(model: PsReid, queries: QueryBatch, crops_B3HW: Tensor, is_same_QB: Tensor) -> Tensor:
    """Foundation: person crops against each other and queries against crops, without any scene.

    The first half of the crops are sightings of as many identities, the second half other sightings of the same, in the
    same order; crops alone are cheap, so there can be many more of them than queries.
    """
    persons_BM = model.embed_persons(crops_B3HW)
    first, second = persons_BM.chunk(2)
    same = torch.eye(len(first), dtype=torch.bool, device=first.device)
    between_crops = losses.metric_loss(first, second, same, model.metric.scale)
    encoded = model.encode_queries(queries)
    return between_crops + losses.metric_loss(encoded.metric_QM, persons_BM, is_same_QB, model.metric.scale)


def captioning(model: PsReid, pixels_B3HW: Tensor, text_ids: Sequence[Tensor]) -> Tensor:
    """Foundation: the language model describes the person it is shown, which is what LLaVA's pretraining teaches.

    `text_ids` are the (T_b,) words of each crop. The sequence is system · picture · words · end, the picture once as a
    query and once as a close-up; the loss is the cross-entropy of the words and the end (eq. 12 for an answer of many
    words).
    """
    features_BVW = model.vision(pixels_B3HW)
    shown_AVD = torch.cat([model.query_adapter(features_BVW), model.target_adapter(features_BVW)])
    before_TD = model.words(model.template.system_ids).to(shown_AVD.dtype)
    said = [*text_ids, *text_ids]
    rows = [
        torch.cat([before_TD, picture_VD, model.words(ids).to(shown_AVD.dtype)])
        for picture_VD, ids in zip(shown_AVD, said, strict=True)
    ]
    embeds_ATD, valid_AT = pad_rows(rows)
    positions_AT = torch.arange(embeds_ATD.shape[1], device=embeds_ATD.device).expand(len(rows), -1)
    hidden_ATD, _ = run_spans(
        model.language.model, embeds_ATD, valid_AT, positions_AT, recompute=model.recompute_activations
    )
    first = len(before_TD) + shown_AVD.shape[1] - 1  # the state that predicts the first word
    end_1 = torch.tensor([model.template.end_id])
    states = torch.cat([row[first : first + len(ids) + 1] for row, ids in zip(hidden_ATD, said, strict=True)])
    answers = torch.cat([torch.cat([ids, end_1]) for ids in said]).to(states.device)
    return losses.text_loss(model.language.get_output_embeddings()(states), answers)


def box_prompted_masks(
    model: PsReid, pixels_F3HW: Tensor, picture_A: Tensor, boxes_A4: Tensor, masks_Ahw: Tensor
) -> Tensor:
    """Foundation: SAM's own promptable segmentation, from boxes alone; BCE per pixel of the person, and Dice.

    `boxes_A4` are shares of SAM's square.
    """
    segmentation = model.segmentation
    embeddings = segmentation.image_embeddings(pixels_F3HW)[picture_A]
    empty = torch.zeros(len(boxes_A4), segmentation.prompt_dim, device=boxes_A4.device, dtype=embeddings.dtype)
    logits = segmentation.mask_logits(embeddings, empty, boxes_A4).float()
    truth = masks_Ahw.float()
    per_pixel = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    bce = (per_pixel.flatten(1).sum(1) / (3 * truth.flatten(1).sum(1) + 1)).mean()
    return bce + losses.dice_loss(logits, truth)


def _iou(boxes: Tensor, other: Tensor) -> Tensor:
    low, high = torch.maximum(boxes[..., :2], other[..., :2]), torch.minimum(boxes[..., 2:], other[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1)
    return intersection / (area - intersection).clamp(min=1e-9)
