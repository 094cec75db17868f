"""PS-ReID (Fig. 6): encodes queries and targets, judges every query on every target, and says where to segment.

Parts come in built (`build.py`, `checkpoint.py`). The model takes and gives tensors; pictures and texts become tensors
in `batches.py`, masks are decoded in `segmentation.py`.

Shapes: Q queries, N targets, C close-ups of one target (padded), S scene tokens, V tokens of one close-up or query
picture, T tokens of a span, K = C + S candidates, D width of the language model, W of the vision encoder, M of the
metric. Boxes are xyxy as shares of the frame's sides.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from modeling.backbones.clip import VisionEncoder
from modeling.ps_reid.adapters import PlaceEmbedding, RoleAdapter
from modeling.ps_reid.attention import SpanKV, run_decisions, run_spans
from modeling.ps_reid.batches import QueryBatch, TargetBatch
from modeling.ps_reid.config import PsReidConfig
from modeling.ps_reid.control_tokens import QRY, REJ, SEG, ControlTokens
from modeling.ps_reid.grounding import Candidates, Grounding, Metric
from modeling.ps_reid.instruct_metric import InstructMetric
from modeling.ps_reid.prompt import PromptTemplate, pad_rows
from modeling.ps_reid.segmentation import BoxHead, MaskPromptHead, SegmentationModule

SCENE_CELL_SPREAD = (1.0, 2.0)
"""A scene token's first guess of a person's half width and half height, in its own cells."""


@dataclass(frozen=True)
class EncodedQueries:
    """Q queries, ready for any number of targets."""

    kv: SpanKV
    qry_QD: Tensor
    """The [QRY] states."""
    hint_QD: Tensor
    """The mean of the query's own embeddings: the decision span starts from it."""
    metric_QM: Tensor

    def unpadded(self, row: int) -> "EncodedQueries":
        """One of the queries, its keys and values without padding."""
        only, length = slice(row, row + 1), int(self.kv.valid_BT[row].sum())
        own = SpanKV(
            keys=[k[only, :, :length] for k in self.kv.keys],
            values=[v[only, :, :length] for v in self.kv.values],
            valid_BT=self.kv.valid_BT[only, :length],
        )
        return EncodedQueries(own, self.qry_QD[only], self.hint_QD[only], self.metric_QM[only])


@dataclass(frozen=True)
class TargetTokens:
    """N targets before the language model: embeddings of scene and close-ups, and what is known of each."""

    embeds_NTD: Tensor
    valid_NT: Tensor
    boxes_NK4: Tensor
    close_ups_NCM: Tensor


@dataclass(frozen=True)
class EncodedTargets:
    """N targets run through the language model on their own (separated mode)."""

    kv: SpanKV
    candidates: Candidates


@dataclass(frozen=True)
class Decisions:
    """Every query judged on every target."""

    states_NQD: Tensor
    """The states that predict [SEG] or [REJ]."""
    logits_NQ3: Tensor
    """Of [SEG], [REJ] and [QRY]."""
    boxes_NQ4: Tensor
    grounding_NQK: Tensor | None

    @property
    def scores_NQ(self) -> Tensor:
        """logit[SEG] - logit[REJ], less the config's bias."""
        return self.logits_NQ3[..., SEG] - self.logits_NQ3[..., REJ]


class PsReid(nn.Module):
    """The whole model. `vision` is frozen CLIP, `language` LLaMA (with LoRA in place), `segmentation` holds SAM."""

    def __init__(
        self,
        config: PsReidConfig,
        *,
        vision: VisionEncoder,
        language: LlamaForCausalLM,
        template: PromptTemplate,
        segmentation: SegmentationModule,
        metric: InstructMetric | None = None,
    ) -> None:
        """`metric`: the one that `config.metric_source` names; without it the model gets one of its own."""
        super().__init__()
        self.config, self.template = config, template
        self.recompute_activations = False
        self.vision, self.language, self.segmentation = vision, language, segmentation
        width, dim = vision.width, language.config.hidden_size
        self.query_adapter = RoleAdapter(width, config.adapter_hidden, dim)
        self.target_adapter = RoleAdapter(width, config.adapter_hidden, dim)
        self.place = PlaceEmbedding(dim)
        self.control = ControlTokens(dim)
        self.metric: Metric | InstructMetric = metric or Metric(width, dim, config.metric_dim)
        self.hint = nn.Linear(dim, dim, bias=False) if config.has_grounding else None
        self.grounding = (
            Grounding(dim, metric_weight=config.metric_weight, joins_found=config.joins_found)
            if config.has_grounding
            else None
        )
        self.box_head = None if config.has_grounding else BoxHead(dim)
        self.mask_prompt = MaskPromptHead(dim, segmentation.prompt_dim)
        self.query_grid = vision.grid(config.vision.query_height_px, config.vision.query_width_px)
        self.scene_grid = vision.grid(config.vision.scene_height_px, config.vision.scene_width_px)

    @property
    def device(self) -> torch.device:
        return self.control.embed.device

    # ---- queries

    def encode_queries(self, batch: QueryBatch) -> EncodedQueries:
        """Runs the query spans through the language model; nothing in the result depends on a target."""
        features_QVW = self.query_features(batch)
        embeds_QTD, valid_QT, hint_QD = self.query_embeds(batch, features_QVW)
        positions = torch.arange(embeds_QTD.shape[1], device=self.device).expand(len(embeds_QTD), -1)
        hidden, kv = run_spans(
            self.language.model, embeds_QTD, valid_QT, positions, recompute=self.recompute_activations
        )
        qry_QD = hidden[torch.arange(len(hidden), device=self.device), valid_QT.sum(1) - 1]
        return EncodedQueries(kv, qry_QD, hint_QD, self.embed_queries(qry_QD, features_QVW, batch))

    def query_features(self, batch: QueryBatch) -> Tensor:
        """(Q, V, W) visual tokens of the query pictures; zeros, at no cost, for queries without one."""
        if batch.has_image_Q.all():
            return self.vision(batch.pixels_Q3HW)
        num_tokens = self.query_grid[0] * self.query_grid[1]
        features_QVW = self.query_adapter.expand.weight.new_zeros(len(batch.has_image_Q), num_tokens, self.vision.width)
        if not batch.has_image_Q.any():
            return features_QVW
        seen = self.vision(batch.pixels_Q3HW[batch.has_image_Q])
        return features_QVW.to(seen.dtype).index_put((batch.has_image_Q,), seen)

    def query_embeds(self, batch: QueryBatch, features_QVW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of the query spans (Q, T, D), their validity (Q, T), and their hints (Q, D)."""
        pictures_QVD = self.query_adapter(features_QVW)
        system_TD = self.words(self.template.system_ids)
        qry_1D = self.control.embed[QRY : QRY + 1].to(pictures_QVD.dtype)
        rows, hints = [], []
        for picture_VD, has_image, ids in zip(pictures_QVD, batch.has_image_Q.tolist(), batch.text_ids, strict=True):
            said = ([picture_VD] if has_image else []) + ([self.words(ids)] if len(ids) else [])
            rows.append(torch.cat([system_TD, *said, qry_1D]))
            hints.append(torch.cat(said).mean(0))
        embeds_QTD, valid_QT = pad_rows(rows)
        return embeds_QTD, valid_QT, torch.stack(hints)

    # ---- targets

    def target_tokens(self, batch: TargetBatch) -> TargetTokens:
        """Scene and close-ups through vision encoder and I-T adapter (eq. 3), padded to the most close-ups."""
        num_targets, scene = len(batch.scenes_N3HW), self.vision(batch.scenes_N3HW)
        cells_S4 = self.scene_cells().to(scene.dtype)
        embeds = self.target_adapter(scene) + self.place(cells_S4)
        cells_NS4 = scene_guess(cells_S4, self.scene_grid).expand(num_targets, -1, -1)
        if not self.config.close_ups or not len(batch.owner_C):
            empty = scene.new_zeros(num_targets, 0, self.metric.dim, dtype=torch.float32)
            return TargetTokens(embeds, embeds.new_ones(embeds.shape[:2], dtype=torch.bool), cells_NS4, empty)
        features = self.vision(batch.close_ups_C3HW)
        slots_C = _slots(batch.owner_C)
        most = int(slots_C.max()) + 1

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(num_targets, most, *values.shape[1:]).index_put((batch.owner_C, slots_C), values)

        close_ups = spread(self.target_adapter(features) + self.place(batch.boxes_C4)[:, None])
        valid_NC = spread(torch.ones_like(slots_C, dtype=torch.bool))
        valid = valid_NC[..., None].expand(-1, -1, close_ups.shape[2]).flatten(1)
        return TargetTokens(
            embeds_NTD=torch.cat([embeds, close_ups.flatten(1, 2)], dim=1),
            valid_NT=torch.cat([valid.new_ones(embeds.shape[:2]), valid], dim=1),
            boxes_NK4=torch.cat([spread(batch.boxes_C4), cells_NS4], dim=1),
            close_ups_NCM=spread(self._embed_seen(batch.close_ups_C3HW, features)),
        )

    def encode_targets(self, tokens: TargetTokens) -> EncodedTargets:
        """Runs target spans through the language model on their own, at fixed positions (separated mode)."""
        start = self.template.longest_query(self.query_grid[0] * self.query_grid[1])
        positions = start + tokens.valid_NT.cumsum(1) - 1
        hidden, kv = run_spans(
            self.language.model, tokens.embeds_NTD, tokens.valid_NT, positions, recompute=self.recompute_activations
        )
        return EncodedTargets(kv, self.candidates(hidden, tokens))

    def candidates(self, hidden_NTD: Tensor, tokens: TargetTokens) -> Candidates:
        """Groups a target span's states by candidate: the mean of each close-up's tokens, then each scene token."""
        num_scene = self.scene_grid[0] * self.scene_grid[1]
        num_close_ups = tokens.close_ups_NCM.shape[1]
        scene, rest = hidden_NTD[:, :num_scene], hidden_NTD[:, num_scene:]
        valid_scene = tokens.valid_NT[:, :num_scene]
        if not num_close_ups:
            return Candidates(scene, tokens.boxes_NK4, valid_scene, tokens.close_ups_NCM)
        close_ups_NCD = rest.unflatten(1, (num_close_ups, -1)).mean(2)
        valid_NC = tokens.valid_NT[:, num_scene:].unflatten(1, (num_close_ups, -1))[..., 0]
        return Candidates(
            states_NKD=torch.cat([close_ups_NCD, scene], dim=1),
            boxes_NK4=tokens.boxes_NK4,
            valid_NK=torch.cat([valid_NC, valid_scene], dim=1),
            close_ups_NCM=tokens.close_ups_NCM,
        )

    # ---- decisions

    def decide_grid(self, queries: EncodedQueries, tokens: TargetTokens) -> Decisions:
        """Every query on every target, under the attention that the config names."""
        if self.config.attention == "separated":
            return self.decide(queries, self.encode_targets(tokens))
        columns = [self.decide_joint(queries.unpadded(row), tokens) for row in range(len(queries.qry_QD))]
        pointers = [c.grounding_NQK for c in columns if c.grounding_NQK is not None]
        return Decisions(
            states_NQD=torch.cat([c.states_NQD for c in columns], dim=1),
            logits_NQ3=torch.cat([c.logits_NQ3 for c in columns], dim=1),
            boxes_NQ4=torch.cat([c.boxes_NQ4 for c in columns], dim=1),
            grounding_NQK=torch.cat(pointers, dim=1) if pointers else None,
        )

    def decide(self, queries: EncodedQueries, targets: EncodedTargets) -> Decisions:
        """Every query on every target, in separated mode."""
        embeds_QkD = self.question_embeds(queries.hint_QD)
        num_scene, num_close_up = (grid[0] * grid[1] for grid in (self.scene_grid, self.query_grid))
        start = self.template.longest_query(num_close_up) + num_scene + self.config.close_ups * num_close_up
        positions = start + torch.arange(embeds_QkD.shape[1], device=self.device)
        states_NQD = run_decisions(
            self.language.model, embeds_QkD, positions, queries.kv, targets.kv, recompute=self.recompute_activations
        )
        return self.read_out(states_NQD, queries.metric_QM, targets.candidates)

    def decide_joint(self, query: EncodedQueries, tokens: TargetTokens) -> Decisions:
        """One query on every target under the paper's causal attention, its prefix reused: (N, 1) decisions."""
        question_1kD = self.question_embeds(query.hint_QD)
        num_targets, k = len(tokens.embeds_NTD), question_1kD.shape[1]
        embeds = torch.cat([tokens.embeds_NTD, question_1kD.expand(num_targets, -1, -1)], dim=1)
        valid = torch.cat([tokens.valid_NT, tokens.valid_NT.new_ones(num_targets, k)], dim=1)
        positions = query.kv.valid_BT.sum(1, keepdim=True) + valid.cumsum(1) - 1
        hidden, _ = run_spans(
            self.language.model, embeds, valid, positions, query.kv, recompute=self.recompute_activations
        )
        return self.read_out(hidden[:, -1:], query.metric_QM, self.candidates(hidden[:, :-k], tokens))

    def question_embeds(self, hint_QD: Tensor) -> Tensor:
        """(Q, k, D): the question's words, the last one carrying the query's hint."""
        words_kD = self.words(self.template.question_ids)
        embeds = words_kD.expand(len(hint_QD), -1, -1)
        if self.hint is None:
            return embeds
        return torch.cat([embeds[:, :-1], embeds[:, -1:] + self.hint(hint_QD)[:, None]], dim=1)

    def read_out(self, states_NQD: Tensor, metric_QM: Tensor, candidates: Candidates) -> Decisions:
        """Control-token logits and box of every decision state."""
        if self.grounding is None:
            assert self.box_head is not None
            return Decisions(states_NQD, self._control_logits(states_NQD), self.box_head(states_NQD), None)
        grounded = self.grounding(states_NQD, metric_QM, candidates, self.metric.scale)
        evidence = grounded.evidence_NQ if self.config.adds_evidence else 0.0
        logits = self._control_logits(grounded.states_NQD, evidence)
        return Decisions(grounded.states_NQD, logits, grounded.boxes_NQ4, grounded.logits_NQK)

    def _control_logits(self, states_NQD: Tensor, evidence_NQ: Tensor | float = 0.0) -> Tensor:
        """(N, Q, 3); the metric's evidence, and the config's bias, move [SEG]."""
        logits = self.control.logits(states_NQD).float()
        seg_row = torch.zeros(3, device=logits.device).index_fill(0, torch.tensor(SEG, device=logits.device), 1.0)
        moved = torch.as_tensor(evidence_NQ - self.config.score_bias, device=logits.device)
        return logits + moved[..., None] * seg_row

    # ---- persons

    def embed_persons(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, M) unit vectors of person crops: the recall stage's gallery side."""
        if isinstance(self.metric, InstructMetric):
            return self.metric.embed_persons(pixels_B3HW)
        return self.metric.embed_person(self.vision(pixels_B3HW), self.query_grid)

    def embed_queries(self, qry_QD: Tensor, features_QVW: Tensor, batch: QueryBatch) -> Tensor:
        """(Q, M) unit vectors of queries, from their [QRY] states and visual tokens, or as an instruct-ReID model."""
        if isinstance(self.metric, Metric):
            return self.metric.embed_query(qry_QD, features_QVW, batch.has_image_Q, self.query_grid)
        return self.metric.embed_queries(batch.pixels_Q3HW, batch.asked_Q)

    def _embed_seen(self, pixels_B3HW: Tensor, features_BVW: Tensor) -> Tensor:
        """`embed_persons` of crops whose visual tokens are there already."""
        if isinstance(self.metric, InstructMetric):
            return self.metric.embed_persons(pixels_B3HW)
        return self.metric.embed_person(features_BVW, self.query_grid)

    def scene_cells(self) -> Tensor:
        """(S, 4) boxes of the scene tokens."""
        rows, columns = self.scene_grid
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        cells = torch.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], dim=-1)
        return cells.flatten(0, 1).to(self.device)

    def words(self, ids: Tensor) -> Tensor:
        """(T, D) embeddings of words by their token numbers."""
        return self.language.get_input_embeddings()(ids.to(self.device))


def scene_guess(cells_S4: Tensor, grid: tuple[int, int]) -> Tensor:
    """A person-sized box around each scene token, where box refinement starts for a person without a close-up."""
    center = (cells_S4[:, :2] + cells_S4[:, 2:]) / 2
    half = cells_S4.new_tensor(SCENE_CELL_SPREAD) / cells_S4.new_tensor([grid[1], grid[0]])
    return torch.cat([center - half, center + half], dim=1).clamp(0, 1)


def _slots(owner_C: Tensor) -> Tensor:
    """Each close-up's number among its owner's; owners come in order."""
    starts = torch.searchsorted(owner_C, owner_C)
    return torch.arange(len(owner_C), device=owner_C.device) - starts
