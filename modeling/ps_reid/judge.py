"""Judges pairs: pictures, boxes and texts in, decisions out. The face of PS-ReID that the search uses.

    judge = Judge.load("tiny")
    queries = {q.query_id: q for q in judge.encode_queries(...)}    # once per query
    decisions = judge.judge(queries, targets, pairs)                # any number of targets and pairs

It knows nothing of tables, files or Ray.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from modeling.errors import ConfigError, DataError
from modeling.ps_reid.attention import SpanKV, stack_spans
from modeling.ps_reid.batches import Processor
from modeling.ps_reid.checkpoint import load_model
from modeling.ps_reid.config import Attention
from modeling.ps_reid.model import Decisions, EncodedQueries, EncodedTargets, PsReid, TargetTokens
from modeling.types import MaskPrompt, PairDecision, QueryInput, TargetInput

QUERIES_PER_BATCH = 16
TARGETS_PER_BATCH = 8
QUERIES_PER_GRID = 256
BANKS_KEPT = 4
GRID_SHARE = 0.5
"""A block of targets is judged as a full grid of its queries when at least this share of the grid is asked for."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class EncodedQuery:
    """One query, run through the language model; reusable for every target."""

    query_id: str
    encoded: EncodedQueries

    @property
    def num_bytes(self) -> int:
        return self.encoded.kv.num_bytes


class Judge:
    """Holds a PS-ReID model and decides for pairs whether the queried person is in the target."""

    def __init__(
        self, model: PsReid, *, attention: Attention | None = None, threshold: float = 0.0, dtype: str = "float32"
    ) -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
        if attention is not None and attention not in get_args(Attention):
            raise ConfigError(f"attention is {attention!r}; it must be one of {', '.join(get_args(Attention))}")
        self.model = model
        self.attention: Attention = attention or model.config.attention
        self.threshold = threshold
        self._dtype = DTYPES[dtype]
        self._processor = Processor(model.config, model.vision, model.template, model.metric)
        self._banks: OrderedDict[tuple[int, ...], tuple[list[EncodedQuery], EncodedQueries]] = OrderedDict()

    @classmethod
    def load(
        cls,
        model: str,
        *,
        attention: Attention | None = None,
        threshold: float = 0.0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> "Judge":
        """The judge with a saved model's weights; `attention` None takes the mode they were trained with."""
        return cls(load_model(model, device=device), attention=attention, threshold=threshold, dtype=dtype)

    def encode_query(self, query: QueryInput) -> EncodedQuery:
        """Runs a query's span through the model."""
        return self.encode_queries([query])[0]

    def encode_queries(self, queries: Sequence[QueryInput]) -> list[EncodedQuery]:
        """The same for many at a time, which is faster; no query's encoding depends on the others."""
        encoded: list[EncodedQuery] = []
        with torch.inference_mode(), self._precision():
            for start in range(0, len(queries), QUERIES_PER_BATCH):
                block = queries[start : start + QUERIES_PER_BATCH]
                together = self.model.encode_queries(self._processor.queries(block).to(self.model.device))
                encoded += [EncodedQuery(q.query_id, _take_query(together, row)) for row, q in enumerate(block)]
        return encoded

    def judge(
        self, queries: Mapping[str, EncodedQuery], targets: Sequence[TargetInput], pairs: Sequence[tuple[str, int]]
    ) -> list[PairDecision]:
        """Decisions in the order of `pairs`, each a query's id and the number of a target.

        Raises DataError for a pair that names an unknown query or target.
        """
        _check_pairs(queries, len(targets), pairs)
        asked: dict[int, list[tuple[int, str]]] = {}
        for i, (query_id, target) in enumerate(pairs):
            asked.setdefault(target, []).append((i, query_id))
        alike = sorted(asked, key=lambda target: min(len(targets[target].boxes_xyxy_px), self.model.config.close_ups))
        results: dict[int, PairDecision] = {}
        with torch.inference_mode(), self._precision():
            for start in range(0, len(alike), TARGETS_PER_BATCH):
                block = alike[start : start + TARGETS_PER_BATCH]
                wanted = [(i, query_id, row) for row, target in enumerate(block) for i, query_id in asked[target]]
                results |= self._judge_block(queries, [targets[target] for target in block], wanted)
        return [results[i] for i in range(len(pairs))]

    def _judge_block(
        self,
        queries: Mapping[str, EncodedQuery],
        targets: Sequence[TargetInput],
        wanted: Sequence[tuple[int, str, int]],
    ) -> dict[int, PairDecision]:
        tokens = self.model.target_tokens(self._processor.targets(targets).to(self.model.device))
        judge = self._joint if self.attention == "joint" else self._separated
        return judge(queries, targets, tokens, wanted)

    def _separated(
        self,
        queries: Mapping[str, EncodedQuery],
        targets: Sequence[TargetInput],
        tokens: TargetTokens,
        wanted: Sequence[tuple[int, str, int]],
    ) -> dict[int, PairDecision]:
        encoded = self.model.encode_targets(tokens)
        results: dict[int, PairDecision] = {}
        for ids, rows, share in _grids(wanted, len(targets)):
            bank = self._bank(queries, ids)
            decisions = self.model.decide(bank, _select_targets(encoded, rows))
            column, line = {q: i for i, q in enumerate(ids)}, {t: i for i, t in enumerate(rows)}
            cells = [(i, line[t], column[q], t) for i, q, t in share]
            results |= self._read(decisions, cells, targets)
        return results

    def _joint(
        self,
        queries: Mapping[str, EncodedQuery],
        targets: Sequence[TargetInput],
        tokens: TargetTokens,
        wanted: Sequence[tuple[int, str, int]],
    ) -> dict[int, PairDecision]:
        results: dict[int, PairDecision] = {}
        for query_id in dict.fromkeys(q for _, q, _ in wanted):
            share = [(i, t) for i, q, t in wanted if q == query_id]
            decisions = self.model.decide_joint(
                queries[query_id].encoded, _select_tokens(tokens, [t for _, t in share])
            )
            results |= self._read(decisions, [(i, row, 0, t) for row, (i, t) in enumerate(share)], targets)
        return results

    def _read(
        self, decisions: Decisions, cells: Sequence[tuple[int, int, int, int]], targets: Sequence[TargetInput]
    ) -> dict[int, PairDecision]:
        """Cells are (number of the pair, row and column in the grid, number of the target)."""
        scores = decisions.scores_NQ.float().cpu()
        prompts = self.model.mask_prompt(decisions.states_NQD).float().cpu().numpy()
        boxes = decisions.boxes_NQ4.float().clamp(0, 1).cpu().numpy()
        results = {}
        for pair, row, column, target in cells:
            height, width = targets[target].image.shape[:2]
            box = boxes[row, column] * np.array([width, height, width, height], dtype=np.float32)
            score = float(scores[row, column])
            prompt = MaskPrompt(prompts[row, column].copy(), box)
            results[pair] = PairDecision(score, score > self.threshold, prompt)
        return results

    def _bank(self, queries: Mapping[str, EncodedQuery], ids: tuple[str, ...]) -> EncodedQueries:
        """The queries stacked; the last few stacks are kept, since neighbouring frames ask for the same queries.

        A stack is known by its encodings, not by their names: another query may take over a name.
        """
        chosen = [queries[i] for i in ids]
        key = tuple(map(id, chosen))  # stays theirs while the stack holds on to them
        if key not in self._banks:
            self._banks[key] = chosen, stack_queries([query.encoded for query in chosen])
            if len(self._banks) > BANKS_KEPT:
                self._banks.popitem(last=False)
        self._banks.move_to_end(key)
        return self._banks[key][1]

    def _precision(self) -> AbstractContextManager[object]:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=self._dtype)


def _take_query(encoded: EncodedQueries, row: int) -> EncodedQueries:
    """One of several encodings, in memory of its own and without padding."""
    one = encoded.unpadded(row)
    own = SpanKV([k.clone() for k in one.kv.keys], [v.clone() for v in one.kv.values], one.kv.valid_BT.clone())
    return EncodedQueries(own, one.qry_QD, one.hint_QD, one.metric_QM)


def stack_queries(queries: Sequence[EncodedQueries]) -> EncodedQueries:
    """Several encodings as one."""
    if len(queries) == 1:
        return queries[0]

    def together(name: str) -> Tensor:
        return torch.cat([getattr(q, name) for q in queries])

    return EncodedQueries(
        stack_spans([q.kv for q in queries]), together("qry_QD"), together("hint_QD"), together("metric_QM")
    )


def _grids(
    wanted: Sequence[tuple[int, str, int]], num_targets: int
) -> list[tuple[tuple[str, ...], list[int], list[tuple[int, str, int]]]]:
    """Splits pairs into grids of queries × targets: one for the block where it is dense, else one per target."""
    all_ids = tuple(dict.fromkeys(q for _, q, _ in wanted))
    if len(wanted) >= GRID_SHARE * len(all_ids) * num_targets:
        groups = [(list(range(num_targets)), list(wanted))]
    else:
        groups = [([t], [w for w in wanted if w[2] == t]) for t in dict.fromkeys(t for _, _, t in wanted)]
    grids = []
    for rows, share in groups:
        ids = tuple(dict.fromkeys(q for _, q, _ in share))
        for start in range(0, len(ids), QUERIES_PER_GRID):
            part = ids[start : start + QUERIES_PER_GRID]
            chosen = set(part)
            grids.append((part, rows, [w for w in share if w[1] in chosen]))
    return grids


def _select_targets(encoded: EncodedTargets, rows: Sequence[int]) -> EncodedTargets:
    if len(rows) == len(encoded.kv.valid_BT):
        return encoded
    index = torch.tensor(rows, device=encoded.kv.valid_BT.device)
    found = encoded.candidates
    candidates = type(found)(*(getattr(found, f)[index] for f in found.__dataclass_fields__))
    return EncodedTargets(encoded.kv.select(index), candidates)


def _select_tokens(tokens: TargetTokens, rows: Sequence[int]) -> TargetTokens:
    index = torch.tensor(rows, device=tokens.embeds_NTD.device)
    return TargetTokens(*(getattr(tokens, f)[index] for f in tokens.__dataclass_fields__))


def _check_pairs(queries: Mapping[str, EncodedQuery], num_targets: int, pairs: Sequence[tuple[str, int]]) -> None:
    for query_id, target in pairs:
        if query_id not in queries:
            raise DataError(f"a pair names query {query_id!r}, which was not encoded; encode it first")
        if not 0 <= target < num_targets:
            raise DataError(
                f"a pair names target {target}, but there are {num_targets} targets (0 to {num_targets - 1})"
            )
