"""One training step's loss: which terms each task and model has (eq. 9, 10 and 14), over one batch of one task.

Knows nothing of samplers, optimizers or processes; `gather` lets the memory banks of several workers stay equal.

Shapes: B samples; D width; I width of the instruction encoder; N identities.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.instruct_reid.attributes import LABEL_COUNTS
from modeling.instruct_reid.editing import InstructionTokens
from modeling.instruct_reid.instruction_encoder import InstructionBatch
from modeling.instruct_reid.instructions import DESCRIPTIVE_TASKS, Task
from modeling.instruct_reid.irm import Irm
from modeling.instruct_reid.losses import (
    IdentityClassifier,
    KlForm,
    Mining,
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

Supervision = Literal["memory", "triplet"]
Gather = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class IrmLossSettings:
    """Weights and forms; defaults are the paper's where it names them."""

    alpha: float = 3.0
    """α of eq. 9, on the adaptive triplet loss (Fig. 8 a)."""
    beta: float = 5.0
    """β of eq. 14, on the hard label loss (Fig. 8 b)."""
    margin: float = 0.3
    """m of eq. 7; distances are between unit vectors, in [0, 4]."""
    mining: Mining = "hard"
    is_adaptive: bool = True
    """False: the plain triplet loss, Table VIII's "w/o L_atri"."""
    supervision: Supervision = "memory"
    """What IRM++ learns from beside identities: the banks of eq. 14, or the triplet loss (the baseline IRM*)."""
    temperature: float = 0.05
    """Of the softmax over a bank in eq. 12 and 13 (the paper: none, that is 1)."""
    kl_form: KlForm = "kl"
    contrast_temperature: float = 0.07
    in_batch: float = 0.0
    """Weight of a contrast between the batch's queries and gallery pictures (ours: random weights learn by it first,
    while a memory bank still holds noise; the paper starts from pretrained ones)."""
    attributes: float = 0.0
    """Weight of naming attributes from the feature (ours): those of a picture, and those that a query asks for."""


@dataclass(frozen=True)
class IrmBatch:
    """B samples of one task."""

    task: Task
    pixels: Tensor
    """(B, 3, h, w)."""
    instructions: InstructionBatch
    """B instructions; those of gallery samples describe the sample itself."""
    is_query: Tensor
    """bool (B,): whether IRM++ fuses the sample with its instruction or takes the image alone."""
    identity: Tensor
    """int64 (B,), numbers below N."""
    shown: Tensor | None = None
    """int64 (B, A): labels of the attributes of each picture (`attribute_labels`)."""
    wanted: Tensor | None = None
    """int64 (B, A): labels of the attributes that each sample's instruction asks for."""

    def to(self, device: torch.device | str) -> "IrmBatch":
        shown, wanted = (None if labels is None else labels.to(device) for labels in (self.shown, self.wanted))
        return IrmBatch(
            self.task, self.pixels.to(device), self.instructions.to(device), self.is_query.to(device),
            self.identity.to(device), shown, wanted,
        )  # fmt: skip


@dataclass(frozen=True)
class IrmLossTerms:
    """Weighted terms of one step; 0 where a task or model does not have one."""

    identity: Tensor
    triplet: Tensor
    soft: Tensor
    hard: Tensor
    contrast: Tensor
    match: Tensor
    attributes: Tensor

    @property
    def total(self) -> Tensor:
        return torch.stack([getattr(self, field.name) for field in fields(self)]).sum()


def _alone(features: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
    return features, identity


class IrmObjective(nn.Module):
    """The model with what only training needs: classifiers, the match head, and the memory banks.

    All tasks share the bank of retrieval features, for they share one gallery; texts and pictures of clothes are not
    comparable, so each task that describes persons has a bank of auxiliary features of its own.
    """

    def __init__(self, irm: Irm, num_identities: int, settings: IrmLossSettings) -> None:
        super().__init__()
        self.irm, self.settings = irm, settings
        irm.instruction.requires_grad_(not irm.config.instruction.is_fixed)
        width, instruction_width = irm.config.image.width, irm.config.instruction.width
        self.identify = IdentityClassifier(width, num_identities)
        self.identify_fused = IdentityClassifier(width, num_identities) if irm.config.kind == "irm" else None
        self.match = nn.Linear(width, 2)
        self.describe = nn.Linear(width, sum(LABEL_COUNTS)) if settings.attributes else None
        uses_banks = irm.config.kind == "irm++" and settings.supervision == "memory"
        self.retrieval_bank = MemoryBank(num_identities, width) if uses_banks else None
        described = sorted(DESCRIPTIVE_TASKS) if uses_banks else []
        self.auxiliary_banks = nn.ModuleDict(
            {task: MemoryBank(num_identities, instruction_width, seed=n) for n, task in enumerate(described, start=1)}
        )

    def forward(self, batch: IrmBatch, gather: Gather = _alone) -> IrmLossTerms:
        """The step's terms. `gather` collects (features, identities) of all workers, in the same order on each."""
        instruction = self.irm.encode_instructions(batch.instructions)
        if batch.task == "T2I":
            terms = self._text_to_image(batch, instruction, gather)
        elif self.irm.config.kind == "irm":
            terms = self._irm(batch, instruction)
        else:
            terms = self._irm_plus_plus(batch, instruction, gather)
        return replace(terms, identity=terms.identity + self._nothing_of_all())

    def settle(self) -> None:
        """Batch norms of a stem keep their statistics from here on and learn to live with them: one set for all tasks,
        infrared and colour, as the trained model has. Undone by `train()`.
        """
        for module in self.irm.image.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def _irm(self, batch: IrmBatch, instruction: InstructionTokens) -> IrmLossTerms:
        """Eq. 9: α L_atri + L_id on F and on F_out."""
        assert self.identify_fused is not None
        tokens = self.irm.image_tokens(batch.pixels, instruction)
        image = self.irm.picture_neck(self.irm.image.feature(tokens))
        answer = self.irm.fuse(tokens, instruction)
        fused = self.irm.fused_neck(answer)
        identity = self.identify(image, batch.identity) + self.identify_fused(fused, batch.identity)
        triplet = self._triplet(image, batch, instruction) + self._triplet(fused, batch, instruction)
        contrast, attributes = self._in_batch(fused, batch), self._attributes(tokens, answer, batch.wanted, batch)
        return self._terms(identity, triplet=triplet, contrast=contrast, attributes=attributes)

    def _irm_plus_plus(self, batch: IrmBatch, instruction: InstructionTokens, gather: Gather) -> IrmLossTerms:
        """Eq. 14 on the retrieval feature: F_q of query samples, F_g of gallery samples."""
        tokens = self.irm.image_tokens(batch.pixels)
        chosen = batch.is_query
        retrieval = tokens.new_zeros(len(tokens), tokens.shape[-1], dtype=torch.float32)
        fused = None
        if chosen.any():
            fused = self.irm.fuse(tokens[chosen], instruction.rows(chosen))
            retrieval[chosen] = self.irm.fused_neck(fused).float()
        if not chosen.all():
            retrieval[~chosen] = self.irm.picture_neck(self.irm.image.feature(tokens[~chosen])).float()
        wanted = None if batch.wanted is None else batch.wanted[chosen]
        ours = {
            "contrast": self._in_batch(retrieval, batch), "attributes": self._attributes(tokens, fused, wanted, batch)
        }  # fmt: skip
        if self.retrieval_bank is None:
            identity = self.identify(retrieval, batch.identity)
            triplet = self._triplet(retrieval, batch, instruction)
            return self._terms(identity, triplet=triplet, **ours)
        terms = self._by_banks(batch.task, retrieval, batch.identity, instruction.feature_BI, gather)
        return replace(terms, **ours)

    def _text_to_image(self, batch: IrmBatch, instruction: InstructionTokens, gather: Gather) -> IrmLossTerms:
        """Eq. 10; IRM++ adds eq. 14, with the text as the query and the image as the gallery."""
        tokens, text = self.irm.image_tokens(batch.pixels), self.irm.text_features(instruction)
        image = self.irm.picture_neck(self.irm.image.feature(tokens))
        contrast = contrastive_loss(image, text, batch.identity, self.settings.contrast_temperature)
        match = self._match(tokens, image, text, instruction, batch.identity)
        ours = {"contrast": contrast, "match": match, "attributes": self._attributes(tokens, None, None, batch)}
        if self.retrieval_bank is None:
            return self._terms(**ours)
        both, twice = torch.cat([image, text]), batch.identity.repeat(2)
        auxiliary = instruction.feature_BI.repeat(2, 1)
        terms = self._by_banks(batch.task, both, twice, auxiliary, gather)
        return replace(terms, **ours)

    def _by_banks(
        self, task: Task, retrieval: Tensor, identity: Tensor, auxiliary: Tensor, gather: Gather
    ) -> IrmLossTerms:
        """Eq. 14; the banks store the step's features after its losses."""
        settings, bank_r = self.settings, self.retrieval_bank
        assert bank_r is not None
        similar = bank_r.similarity(retrieval)
        how = {"temperature": settings.temperature, "form": settings.kl_form}
        hard = settings.beta * hard_label_loss(identity, similar, **how)  # type: ignore[arg-type]
        soft = None
        if task in DESCRIPTIVE_TASKS:  # a sentence that suits everybody is no label of anybody
            bank_a = self.auxiliary_banks[task]
            assert isinstance(bank_a, MemoryBank)
            soft = soft_label_loss(bank_a.similarity(auxiliary), similar, **how)  # type: ignore[arg-type]
            bank_a.store(*gather(auxiliary.detach(), identity))
        bank_r.store(*gather(retrieval.detach(), identity))
        return self._terms(self.identify(retrieval, identity), soft=soft, hard=hard)

    def _triplet(self, features: Tensor, batch: IrmBatch, instruction: InstructionTokens) -> Tensor:
        is_told_apart = self.settings.is_adaptive and batch.task in DESCRIPTIVE_TASKS
        related = relatedness(batch.identity, instruction.feature_BI if is_told_apart else None)
        unit = F.normalize(features.float(), dim=1)
        return self.settings.alpha * adaptive_triplet_loss(
            unit, related, margin=self.settings.margin, mining=self.settings.mining
        )

    def _in_batch(self, features: Tensor, batch: IrmBatch) -> Tensor:
        """Queries and gallery pictures of the batch find each other, as texts and images do in eq. 10."""
        settings, asks = self.settings, batch.is_query
        if not settings.in_batch:
            return features.new_zeros(())
        images, queries = features[~asks], features[asks]
        loss = contrastive_loss(images, queries, batch.identity[asks], settings.contrast_temperature)
        return settings.in_batch * loss

    def _attributes(
        self, tokens_BND: Tensor, fused_QD: Tensor | None, wanted_QA: Tensor | None, batch: IrmBatch
    ) -> Tensor:
        """The pictures' own attributes, and those asked for in the Q features fused with an instruction."""
        if self.describe is None or batch.shown is None:
            return tokens_BND.new_zeros(())
        loss = attribute_loss(self.describe(self.irm.image.feature(tokens_BND)), batch.shown)
        if fused_QD is not None and wanted_QA is not None:
            loss = loss + attribute_loss(self.describe(fused_QD), wanted_QA)
        return self.settings.attributes * loss

    def _match(
        self, tokens: Tensor, image: Tensor, text: Tensor, instruction: InstructionTokens, identity: Tensor
    ) -> Tensor:
        """True pairs, each image with its hardest wrong text, and each text with its hardest wrong image."""
        with torch.no_grad():
            similarity = F.normalize(image, dim=1) @ F.normalize(text, dim=1).t()
            wrong_text, wrong_image = (hardest_strangers(s, identity) for s in (similarity, similarity.t()))
        here = torch.arange(len(identity), device=identity.device)
        images, texts = torch.cat([here, here, wrong_image]), torch.cat([here, wrong_text, here])
        fused = self.irm.fuse(tokens[images], instruction.rows(texts))
        return matching_loss(self.match(fused), identity[images] == identity[texts])

    def _nothing_of_all(self) -> Tensor:
        """0, through every trained weight: no task uses them all, but optimizers that split their state need all."""
        return torch.stack([p.flatten()[0] for p in self.parameters() if p.requires_grad]).sum() * 0.0

    def _terms(
        self, identity: Tensor | None = None, *, triplet: Tensor | None = None, soft: Tensor | None = None,
        hard: Tensor | None = None, contrast: Tensor | None = None, match: Tensor | None = None,
        attributes: Tensor | None = None,
    ) -> IrmLossTerms:  # fmt: skip
        zero = self.match.weight.new_zeros(())
        given = (identity, triplet, soft, hard, contrast, match, attributes)
        return IrmLossTerms(*(zero if term is None else term for term in given))
