"""The losses of IRM and IRM++, term by term (§IV-B2, §IV-B3, §IV-C, eq. 7-14).

Shapes: B samples of a batch; A anchors, or attributes; C labels of all attributes; D width; N identities of the
training set; P pairs.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.instruct_reid.attributes import LABEL_COUNTS, UNKNOWN_LABEL

Mining = Literal["hard", "all"]
KlForm = Literal["kl", "printed"]


class IdentityClassifier(nn.Module):
    """L_id: cross-entropy over the N training identities.

    Features and class vectors have unit length, so training shapes the same cosine that ranks the gallery.
    """

    def __init__(self, width: int, num_identities: int, *, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_identities, width) * 0.02)
        self.scale = scale

    def forward(self, features_BD: Tensor, identity_B: Tensor) -> Tensor:
        """The mean over the batch, 0-d."""
        logits = self.scale * F.normalize(features_BD.float(), dim=1) @ F.normalize(self.weight.float(), dim=1).t()
        return F.cross_entropy(logits, identity_B)


def relatedness(identity_B: Tensor, instruction_BI: Tensor | None) -> Tensor:
    """β of eq. 8 for every two samples (B, B): cosine of their instructions if they show one identity, else 0.

    Without instructions (tasks whose sentence says nothing about the person, and the plain triplet loss of Table VIII)
    β is 1 or 0. A negative cosine counts as 0: literally, the same person would be less related than a stranger.
    """
    is_same_BB = (identity_B[:, None] == identity_B[None]).float()
    if instruction_BI is None:
        return is_same_BB
    unit = F.normalize(instruction_BI.detach().float(), dim=1)
    return is_same_BB * (unit @ unit.t()).clamp(min=0)


def adaptive_triplet_loss(
    features_BD: Tensor, relatedness_BB: Tensor, *, margin: float = 0.3, mining: Mining = "hard"
) -> Tensor:
    """Eq. 7: {Sign(β1 - β2) [d(a, r1) + (β1 - β2) m - d(a, r2)]}+ with the squared Euclidean distance d.

    `mining` "all" is the mean over every triplet of an anchor and two other samples with β1 ≠ β2; "hard" is the mean
    over anchors of their worst triplet, which for β in {0, 1} is the batch-hard triplet loss. Two references of equal
    relatedness cost nothing, because Sign(0) = 0 (Fig. 6 b speaks of equal distances, but the formula does not ask for
    them).
    """
    if mining not in ("hard", "all"):
        raise ValueError(f"mining is {mining!r}; it must be 'hard' or 'all'")
    features_BD = features_BD.float()
    distance_BB = (features_BD[:, None] - features_BD[None]).square().sum(-1)
    gap_ABB = relatedness_BB[:, :, None] - relatedness_BB[:, None, :]
    other_BB = ~torch.eye(len(features_BD), dtype=torch.bool, device=features_BD.device)
    # Both orders of (r1, r2) cost the same, so each pair is counted once: with r1 the more related.
    counts_ABB = (gap_ABB > 1e-6) & other_BB[:, :, None] & other_BB[:, None, :]
    cost_ABB = (distance_BB[:, :, None] + gap_ABB * margin - distance_BB[:, None, :]).clamp(min=0)
    if not counts_ABB.any():
        return features_BD.sum() * 0.0
    if mining == "all":
        return cost_ABB[counts_ABB].mean()
    is_anchor_A = counts_ABB.flatten(1).any(1)
    worst_A = cost_ABB.masked_fill(~counts_ABB, 0.0).flatten(1).amax(1)
    return worst_A[is_anchor_A].mean()


def contrastive_loss(image_BD: Tensor, text_BD: Tensor, identity_B: Tensor, temperature: Tensor | float) -> Tensor:
    """L_cl of eq. 10: images and texts find each other in the batch, both ways.

    Every pair of one identity is right; the target is shared evenly among them, as RaSa and IRRA do.
    """
    logits_BB = F.normalize(image_BD.float(), dim=1) @ F.normalize(text_BD.float(), dim=1).t() / temperature
    is_same_BB = (identity_B[:, None] == identity_B[None]).float()
    target_BB = is_same_BB / is_same_BB.sum(1, keepdim=True)
    to_text = -(target_BB * logits_BB.log_softmax(1)).sum(1).mean()
    to_image = -(target_BB * logits_BB.t().log_softmax(1)).sum(1).mean()
    return (to_text + to_image) / 2


def matching_loss(logits_P2: Tensor, is_pair_P: Tensor) -> Tensor:
    """L_match of eq. 10: cross-entropy with ŷ = [0, 1] for pairs that belong together and [1, 0] for others."""
    return F.cross_entropy(logits_P2.float(), is_pair_P.long())


def attribute_loss(logits_BC: Tensor, labels_BA: Tensor) -> Tensor:
    """Cross-entropy of each attribute's labels (`attributes.LABEL_COUNTS`, side by side in C), the mean over all that
    are known; ours, for the papers learn from attributes through sentences alone. 0 where nothing is known.
    """
    parts = logits_BC.float().split(LABEL_COUNTS, dim=1)
    sums = [
        F.cross_entropy(part, labels, ignore_index=UNKNOWN_LABEL, reduction="sum")
        for part, labels in zip(parts, labels_BA.t(), strict=True)
    ]
    return torch.stack(sums).sum() / (labels_BA != UNKNOWN_LABEL).sum().clamp(min=1)


def hardest_strangers(similarity_BB: Tensor, identity_B: Tensor) -> Tensor:
    """(B,) for each row the most similar column of another identity: the negative pairs of L_match.

    A batch of one identity has none; the row's own number then stands in its place.
    """
    is_same_BB = identity_B[:, None] == identity_B[None]
    hardest_B = similarity_BB.masked_fill(is_same_BB, float("-inf")).argmax(1)
    return torch.where(is_same_BB.all(1), torch.arange(len(identity_B), device=identity_B.device), hardest_B)


def soft_label_loss(
    auxiliary_BN: Tensor, retrieval_BN: Tensor, *, temperature: float, form: KlForm = "kl", xi: float = 1e-8
) -> Tensor:
    """L_soft, eq. 12: P(S_r) follows P(S_a), the softmax over identities of the cosines of eq. 11.

    form "kl" is the divergence KL(P(S_a) || P(S_r)) = Σ P(S_a) log(P(S_a) / (P(S_r) + ξ)), the mean over the B samples.
    The printed fraction is upside down: its value is minus a divergence, and minimising it drives the two apart.
    form "printed" computes it as printed. The paper's P has no temperature; over cosines in [-1, 1] and hundreds of
    identities that is nearly uniform, so one is given here (1 is the paper's).
    """
    return _divergence((auxiliary_BN.float() / temperature).softmax(1).detach(), retrieval_BN, temperature, form, xi)


def hard_label_loss(
    identity_B: Tensor, retrieval_BN: Tensor, *, temperature: float, form: KlForm = "kl", xi: float = 1e-8
) -> Tensor:
    """L_hard, eq. 13: as eq. 12 with the one-hot identity in place of S_a.

    form "kl" takes the one-hot vector itself as the distribution, "printed" its softmax P(S_gt), as printed.
    """
    one_hot_BN = F.one_hot(identity_B, retrieval_BN.shape[1]).float()
    target_BN = one_hot_BN if form == "kl" else (one_hot_BN / temperature).softmax(1)
    return _divergence(target_BN, retrieval_BN, temperature, form, xi)


def _divergence(target_BN: Tensor, retrieval_BN: Tensor, temperature: float, form: KlForm, xi: float) -> Tensor:
    if form not in ("kl", "printed"):
        raise ValueError(f"form is {form!r}; it must be 'kl' or 'printed'")
    share_BN = (retrieval_BN.float() / temperature).softmax(1)
    if form == "printed":
        return (target_BN * (share_BN / (target_BN + xi)).log()).sum(1).mean()
    log_ratio_BN = target_BN.clamp(min=1e-38).log() - (share_BN + xi).log()
    return (target_BN * log_ratio_BN).sum(1).mean()
