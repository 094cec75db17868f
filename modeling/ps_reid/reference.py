"""PS-ReID the plain way: one full forward of the Hugging Face LlamaModel per pair, nothing shared between pairs.

It is what one would write first, and the yardstick of everything faster: tests compare the `Judge` with it, and
`psreid bench judge` times both. Each pair encodes its own query picture, scene and close-ups, and runs its own whole
sequence (query span, target span, question) through `LlamaModel.forward` with `inputs_embeds`. Pictures are resized
once, pairs of like length share a padded batch: it is plain, not careless.

Shapes: B pairs of one batch, T tokens of a sequence (padded at the end), q t k tokens of its three spans, D width of
the language model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from modeling.errors import ConfigError
from modeling.ps_reid.batches import Processor, QueryBatch, TargetBatch
from modeling.ps_reid.config import Attention
from modeling.ps_reid.model import PsReid, TargetTokens
from modeling.ps_reid.prompt import pad_rows
from modeling.types import MaskPrompt, PairDecision, QueryInput, TargetInput

PAIRS_PER_BATCH = 8


@dataclass(frozen=True)
class PairSequence:
    """The embeddings of one pair's sequence (T, D), without padding, and where its spans end."""

    embeds_TD: Tensor
    num_query: int
    num_target: int

    @property
    def spans(self) -> tuple[slice, slice, slice]:
        """Query, target and decision span."""
        end = self.num_query + self.num_target
        return slice(0, self.num_query), slice(self.num_query, end), slice(end, len(self.embeds_TD))


@dataclass(frozen=True)
class PreparedInputs:
    """Queries and targets as tensors, one batch of one each."""

    queries: Mapping[str, QueryBatch]
    targets: Sequence[TargetBatch]
    sizes: Sequence[tuple[int, int]]
    """Height and width of each target's frame, pixels."""

    def length(self, query_id: str, target: int) -> tuple[int, bool, int]:
        """What pairs are sorted by, so that those of like length share a batch: close-ups, then the query's parts."""
        query = self.queries[query_id]
        return len(self.targets[target].owner_C), bool(query.has_image_Q), len(query.text_ids[0])


class PlainJudge:
    """Decides pairs as the `Judge` does, at the full price of each."""

    def __init__(
        self,
        model: PsReid,
        *,
        attention: Attention | None = None,
        threshold: float = 0.0,
        pairs_per_batch: int = PAIRS_PER_BATCH,
    ) -> None:
        if attention is not None and attention not in get_args(Attention):
            raise ConfigError(f"attention is {attention!r}; it must be one of {', '.join(get_args(Attention))}")
        self.model = model
        self.attention: Attention = attention or model.config.attention
        self.threshold = threshold
        self._pairs_per_batch = pairs_per_batch
        self._processor = Processor(model.config, model.vision, model.template, model.metric)

    def judge(
        self, queries: Mapping[str, QueryInput], targets: Sequence[TargetInput], pairs: Sequence[tuple[str, int]]
    ) -> list[PairDecision]:
        """Decisions in the order of `pairs`, each a query's id and the number of a target."""
        return self.decide(self.prepare(queries, targets), pairs)

    def prepare(self, queries: Mapping[str, QueryInput], targets: Sequence[TargetInput]) -> PreparedInputs:
        """Pictures and texts as tensors."""
        return PreparedInputs(
            {query_id: self._processor.queries([query]) for query_id, query in queries.items()},
            [self._processor.targets([target]) for target in targets],
            [target.image.shape[:2] for target in targets],
        )

    def decide(self, inputs: PreparedInputs, pairs: Sequence[tuple[str, int]]) -> list[PairDecision]:
        """Decisions in the order of `pairs`."""
        results: dict[int, PairDecision] = {}
        order = sorted(range(len(pairs)), key=lambda i: inputs.length(*pairs[i]))
        with torch.inference_mode():
            for start in range(0, len(order), self._pairs_per_batch):
                block = order[start : start + self._pairs_per_batch]
                decided = self._decide_batch(
                    _join_queries([inputs.queries[pairs[i][0]] for i in block]).to(self.model.device),
                    _join_targets([inputs.targets[pairs[i][1]] for i in block]).to(self.model.device),
                    [inputs.sizes[pairs[i][1]] for i in block],
                )
                results |= dict(zip(block, decided, strict=True))
        return [results[i] for i in range(len(pairs))]

    def _decide_batch(
        self, queries: QueryBatch, targets: TargetBatch, sizes: Sequence[tuple[int, int]]
    ) -> list[PairDecision]:
        """Query i on target i, for all i; `sizes` are the frames' heights and widths."""
        model = self.model
        features_BVW = model.query_features(queries)
        query_embeds, query_valid, hint_BD = model.query_embeds(queries, features_BVW)
        tokens, question_BkD = model.target_tokens(targets), model.question_embeds(hint_BD)
        sequences = []
        for i, question_kD in enumerate(question_BkD):
            query_qD, target_tD = query_embeds[i, query_valid[i]], tokens.embeds_NTD[i, tokens.valid_NT[i]]
            sequences.append(PairSequence(torch.cat([query_qD, target_tD, question_kD]), len(query_qD), len(target_tD)))
        hidden = self._run(sequences)
        qry_BD = torch.stack([states[s.num_query - 1] for states, s in zip(hidden, sequences, strict=True)])
        metric_BM = model.embed_queries(qry_BD, features_BVW, queries)
        return [
            self._read_out(states, sequence.spans[1], metric_BM[i : i + 1], _row(tokens, i), sizes[i])
            for i, (states, sequence) in enumerate(zip(hidden, sequences, strict=True))
        ]

    def _run(self, sequences: Sequence[PairSequence]) -> list[Tensor]:
        """Final hidden states (T, D) of each sequence."""
        embeds_BTD, _ = pad_rows([s.embeds_TD for s in sequences])
        if self.attention == "joint":  # causal, so no token sees the padding behind it: no mask is needed
            output = self.model.language.model(inputs_embeds=embeds_BTD, use_cache=False)
        else:
            num_tokens = embeds_BTD.shape[1]
            output = self.model.language.model(
                inputs_embeds=embeds_BTD,
                attention_mask=torch.stack([separated_mask(s, num_tokens) for s in sequences])[:, None],
                position_ids=torch.stack([self._separated_positions(s, num_tokens) for s in sequences]),
                use_cache=False,
            )
        return [states[: len(s.embeds_TD)] for states, s in zip(output.last_hidden_state, sequences, strict=True)]

    def _separated_positions(self, sequence: PairSequence, num_tokens: int) -> Tensor:
        """(T,): target and decision spans begin where the longest query and the fullest target would end."""
        model = self.model
        num_scene, num_close_up = (rows * columns for rows, columns in (model.scene_grid, model.query_grid))
        target_start = model.template.longest_query(num_close_up)
        decision_start = target_start + num_scene + model.config.close_ups * num_close_up
        positions = torch.zeros(num_tokens, dtype=torch.long, device=model.device)
        for span, start in zip(sequence.spans, (0, target_start, decision_start), strict=True):
            positions[span] = start + torch.arange(span.stop - span.start, device=model.device)
        return positions

    def _read_out(
        self, states_TD: Tensor, target: slice, metric_1M: Tensor, tokens: TargetTokens, size: tuple[int, int]
    ) -> PairDecision:
        target_1TD = torch.zeros_like(tokens.embeds_NTD)
        target_1TD[tokens.valid_NT] = states_TD[target]
        candidates = self.model.candidates(target_1TD, tokens)
        decisions = self.model.read_out(states_TD[-1][None, None], metric_1M, candidates)
        score = float(decisions.scores_NQ)
        prompt = self.model.mask_prompt(decisions.states_NQD[0, 0]).float().cpu().numpy()
        box = decisions.boxes_NQ4[0, 0].float().clamp(0, 1).cpu().numpy()
        box_xyxy_px = box * np.array([size[1], size[0], size[1], size[0]], dtype=np.float32)
        return PairDecision(score, score > self.threshold, MaskPrompt(prompt, box_xyxy_px))


def separated_mask(sequence: PairSequence, num_tokens: int) -> Tensor:
    """(T, T), additive: causal, but the target span does not see the query span; padding sees itself alone."""
    query, target, _ = sequence.spans
    causal = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=sequence.embeds_TD.device).tril()
    causal[target, query] = False
    causal[len(sequence.embeds_TD) :, : len(sequence.embeds_TD)] = False
    mask = sequence.embeds_TD.new_zeros(num_tokens, num_tokens)
    return mask.masked_fill(~causal, torch.finfo(mask.dtype).min)


def _join_queries(batches: Sequence[QueryBatch]) -> QueryBatch:
    return QueryBatch(
        torch.cat([b.pixels_Q3HW for b in batches]),
        torch.cat([b.has_image_Q for b in batches]),
        [ids for b in batches for ids in b.text_ids],
        [asked for b in batches for asked in b.asked_Q],
    )


def _join_targets(batches: Sequence[TargetBatch]) -> TargetBatch:
    return TargetBatch(
        scenes_N3HW=torch.cat([b.scenes_N3HW for b in batches]),
        close_ups_C3HW=torch.cat([b.close_ups_C3HW for b in batches]),
        owner_C=torch.cat([torch.full_like(b.owner_C, row) for row, b in enumerate(batches)]),
        boxes_C4=torch.cat([b.boxes_C4 for b in batches]),
    )


def _row(tokens: TargetTokens, row: int) -> TargetTokens:
    return TargetTokens(*(getattr(tokens, field)[row : row + 1] for field in tokens.__dataclass_fields__))
