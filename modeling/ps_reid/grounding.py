"""The metric shared by query and persons, and the grounding that uses it (ours, not in the paper).

A small vision encoder sees little of a distant person in a scaled-down scene. So the persons that a detector found are
shown as close-ups beside the scene, and the query is compared with each of them in one metric space. The same metric
is the recall stage's person embedding. `../notes` of the measurements are in the model card.

Shapes: Q queries, N targets, C close-ups of a target, S scene tokens, D width of the language model, V visual tokens
(rows x columns), W width of the vision encoder, M width of the metric. Boxes are xyxy as shares of the frame's sides.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.neck import Neck

NUM_STRIPES = 4
NOBODY = 0.0
"""The cosine that stands for a target without close-ups."""


class Metric(nn.Module):
    """Person crops and queries as unit vectors of one space."""

    def __init__(self, vision_dim: int, language_dim: int, metric_dim: int) -> None:
        super().__init__()
        self.person = nn.Linear(vision_dim * NUM_STRIPES, metric_dim)
        self.person_neck = Neck(metric_dim)
        self.query = nn.Linear(language_dim, metric_dim)
        self.query_neck = Neck(metric_dim)
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    @property
    def dim(self) -> int:
        """M."""
        return self.person.out_features

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied with to become logits (a learned inverse temperature, at most 100)."""
        return self.log_scale.exp().clamp(max=100.0)

    def embed_person(self, features_BVW: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, M) unit vectors of crops, from their visual tokens pooled in horizontal stripes (head to feet)."""
        map_BWhw = features_BVW.transpose(1, 2).unflatten(2, grid)
        stripes_BWS = F.adaptive_avg_pool2d(map_BWhw, (NUM_STRIPES, 1)).squeeze(-1)
        return F.normalize(self.person_neck(self.person(stripes_BWS.flatten(1))), dim=-1)

    def embed_query(self, qry_BD: Tensor, features_BVW: Tensor, has_image_B: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, M) unit vectors of queries: what [QRY] read, added to the picture's own vector where there is one."""
        read_BM = F.normalize(self.query_neck(self.query(qry_BD)), dim=-1)
        if not has_image_B.any():
            return read_BM
        picture = self.embed_person(features_BVW[has_image_B], grid)
        return F.normalize(read_BM.index_add(0, has_image_B.nonzero()[:, 0], picture), dim=-1)


@dataclass(frozen=True)
class Candidates:
    """Where in each target the person may be: close-ups first, then scene tokens. K = C + S."""

    states_NKD: Tensor
    boxes_NK4: Tensor
    valid_NK: Tensor
    close_ups_NCM: Tensor
    """Metric vectors of the close-ups."""


@dataclass(frozen=True)
class Grounded:
    """Where each query is in each target, and how much the metric speaks for it."""

    logits_NQK: Tensor
    boxes_NQ4: Tensor
    evidence_NQ: Tensor
    """Added to the [SEG] logit."""
    states_NQD: Tensor
    """The decision states, with what the pointer found joined to them where the model does that."""


class Finding(nn.Module):
    """Joins what the decision points to, and how alike it is, to the decision state.

    Without it the few decision tokens of a small language model hardly see the target: a query's states on different
    targets keep a cosine of 0.999, so eq. 9 has nothing to tell apart. Adds nothing before it has learned.
    """

    def __init__(self, language_dim: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * language_dim + 1, language_dim)
        self.join = nn.Linear(language_dim, language_dim)
        self.lean = nn.Linear(1, language_dim, bias=False)
        for parameter in (*self.join.parameters(), *self.lean.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, decision_NQD: Tensor, pointer_NQK: Tensor, candidates: Candidates, evidence_NQ: Tensor) -> Tensor:
        """The states with candidates, by the pointer's probabilities, and the metric's evidence joined to them."""
        seen_NQD = pointer_NQK.softmax(-1).to(candidates.states_NKD.dtype) @ candidates.states_NKD
        evidence_NQ1 = evidence_NQ[..., None].to(decision_NQD.dtype)
        found = self.join(F.gelu(self.mix(torch.cat([decision_NQD, seen_NQD, evidence_NQ1], dim=-1))))
        return decision_NQD + (found + self.lean(evidence_NQ1)).to(decision_NQD.dtype)


class Grounding(nn.Module):
    """Points from decision states to candidates, refines the box there, and weighs the metric's evidence."""

    def __init__(self, language_dim: int, *, metric_weight: float = 1.0, joins_found: bool = False) -> None:
        super().__init__()
        self.metric_weight = metric_weight
        self.pointer = nn.Linear(language_dim, language_dim)
        self.place = nn.Linear(language_dim, language_dim)
        self.refine = nn.Sequential(nn.Linear(2 * language_dim, language_dim), nn.GELU(), nn.Linear(language_dim, 4))
        self.evidence_scale = nn.Parameter(torch.tensor(10.0))
        self.evidence_bias = nn.Parameter(torch.tensor(0.5))
        for parameter in self.refine[-1].parameters():
            nn.init.zeros_(parameter)
        self.finding = Finding(language_dim) if joins_found else None

    def forward(self, decision_NQD: Tensor, query_QM: Tensor, candidates: Candidates, scale: Tensor) -> Grounded:
        """Every query with every target. `decision_NQD` are the states that predict [SEG] or [REJ]."""
        num_close_ups = candidates.close_ups_NCM.shape[1]
        with torch.autocast(query_QM.device.type, enabled=False):
            cosine_NQC = torch.einsum("qm,ncm->nqc", query_QM.float(), candidates.close_ups_NCM.float())
        keys = self.place(candidates.states_NKD)
        logits = (self.pointer(decision_NQD) @ keys.transpose(1, 2)).float() * keys.shape[-1] ** -0.5
        metric_NQK = F.pad(cosine_NQC * scale * self.metric_weight, (0, logits.shape[-1] - num_close_ups))
        logits = (logits + metric_NQK).masked_fill(~candidates.valid_NK[:, None], float("-inf"))
        evidence_NQ = self._evidence(cosine_NQC, candidates.valid_NK[:, :num_close_ups])
        states_NQD = decision_NQD
        if self.finding is not None:
            states_NQD = self.finding(decision_NQD, logits, candidates, evidence_NQ / self.metric_weight)
        return Grounded(
            logits_NQK=logits,
            boxes_NQ4=self._boxes(decision_NQD, logits.argmax(-1), candidates),
            evidence_NQ=evidence_NQ,
            states_NQD=states_NQD,
        )

    def _boxes(self, decision_NQD: Tensor, chosen_NQ: Tensor, candidates: Candidates) -> Tensor:
        """The chosen candidate's box, shifted and scaled by what decision and candidate say."""
        rows = torch.arange(len(chosen_NQ), device=chosen_NQ.device)[:, None]
        reference = candidates.boxes_NK4[rows, chosen_NQ]
        delta = self.refine(torch.cat([decision_NQD, candidates.states_NKD[rows, chosen_NQ]], dim=-1)).float()
        size = reference[..., 2:] - reference[..., :2]
        center = (reference[..., 2:] + reference[..., :2]) / 2 + delta[..., :2].tanh() * size
        half = size * delta[..., 2:].clamp(-2, 2).exp() / 2
        return torch.cat([center - half, center + half], dim=-1)

    def _evidence(self, cosine_NQC: Tensor, valid_NC: Tensor) -> Tensor:
        """Of the most alike close-up; a target without any shows nobody, which is as like the query as chance."""
        best_NQ = cosine_NQC.new_full(cosine_NQC.shape[:2], NOBODY)
        if cosine_NQC.shape[-1]:
            most_NQ = cosine_NQC.masked_fill(~valid_NC[:, None], -1.0).amax(-1)
            best_NQ = torch.where(valid_NC.any(1)[:, None], most_NQ, best_NQ)
        return (best_NQ - self.evidence_bias) * self.evidence_scale * self.metric_weight
