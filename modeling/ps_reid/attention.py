"""The language model run over spans whose keys and values are shared between pairs.

A pair's sequence is  query span · target span · decision span  (`prompt.py`). Two modes of attention:

- joint: the paper's causal attention. The query span sees nothing behind it, so its keys and values are computed once
  per query; target and decision spans are then run on top of them (`run_spans` with `prefix`).
- separated: the target span does not see the query span, so its keys and values too are computed once per target. A
  pair then costs only its decision tokens (`run_decisions`), which attend to both and to themselves.

Both equal a plain forward of the same LlamaModel under the same mask; no weights are copied or changed, so LoRA modules
that peft put in place are simply called. It knows nothing of images, prompts or losses.

Shapes: B spans, Q queries, N targets, T tokens of a span, L valid tokens of all spans together, P tokens of the prefix,
k tokens of a decision, D width, H heads, G heads per key-value head, d width of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.models.llama.modeling_llama import LlamaModel, apply_rotary_pos_emb


@dataclass(frozen=True)
class SpanKV:
    """Keys (already rotated) and values of B spans, per layer."""

    keys: Sequence[Tensor]
    """One (B, H / G, T, d) per layer."""
    values: Sequence[Tensor]
    valid_BT: Tensor
    """False where a span is padded, at its end or between its parts."""

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def select(self, rows: Tensor | slice) -> "SpanKV":
        """The chosen spans; a slice shares memory, an index tensor copies."""
        return SpanKV([k[rows] for k in self.keys], [v[rows] for v in self.values], self.valid_BT[rows])


def stack_spans(spans: Sequence[SpanKV]) -> SpanKV:
    """All spans in one, padded at the end to the longest."""
    longest = max(s.valid_BT.shape[1] for s in spans)

    def padded(t: Tensor) -> Tensor:
        return F.pad(t, (0, 0, 0, longest - t.shape[2]))

    layers = range(len(spans[0].keys))
    return SpanKV(
        keys=[torch.cat([padded(s.keys[i]) for s in spans]) for i in layers],
        values=[torch.cat([padded(s.values[i]) for s in spans]) for i in layers],
        valid_BT=torch.cat([F.pad(s.valid_BT, (0, longest - s.valid_BT.shape[1])) for s in spans]),
    )


def run_spans(
    model: LlamaModel,
    embeds_BTD: Tensor,
    valid_BT: Tensor,
    positions_BT: Tensor,
    prefix: SpanKV | None = None,
    *,
    recompute: bool = False,
) -> tuple[Tensor, SpanKV]:
    """Final hidden states (B, T, D) of causal spans, and their keys and values (the prefix not included).

    `prefix` is one span without padding, seen by all. Padding costs nothing but the room for its zeros: the valid
    tokens of all spans go through the layers side by side, only attention is done span by span. `recompute`: what
    happens inside a layer is computed again in the backward pass instead of kept.
    """
    runs = _runs_of_equal_length(valid_BT)
    rotation = model.rotary_emb(embeds_BTD, position_ids=positions_BT[valid_BT][None])
    hidden_1LD, keys, values = embeds_BTD[valid_BT][None], [], []
    for i, layer in enumerate(model.layers):
        shared = (None, None) if prefix is None else (prefix.keys[i], prefix.values[i])
        hidden_1LD, key, value = _call(recompute, _span_layer, layer, hidden_1LD, *shared, rotation, runs)
        keys.append(_unpacked(key, valid_BT))
        values.append(_unpacked(value, valid_BT))
    states_LD = model.norm(hidden_1LD)[0]
    hidden_BTD = states_LD.new_zeros(*valid_BT.shape, states_LD.shape[-1]).index_put((valid_BT,), states_LD)
    return hidden_BTD, SpanKV(keys, values, valid_BT)


def run_decisions(
    model: LlamaModel,
    embeds_QkD: Tensor,
    positions_k: Tensor,
    queries: SpanKV,
    targets: SpanKV,
    *,
    recompute: bool = False,
) -> Tensor:
    """Final state (N, Q, D) of the decision span's last token, of every query with every target (separated mode).

    Attention over the three key sets (query's, target's, own) is computed apart and merged by their log-sum-exp, so the
    shared keys and values are read once per matrix product and never copied per pair. What no target has been seen in
    (the first layer's projections) is computed once per query, what nobody reads (the last layer of all tokens but the
    last) not at all.
    """
    k = embeds_QkD.shape[1]
    rotation = model.rotary_emb(embeds_QkD, position_ids=positions_k[None])
    causal_kk = torch.ones(k, k, dtype=torch.bool, device=embeds_QkD.device).tril()
    paddings = _padding(targets.valid_BT), _padding(queries.valid_BT)
    hidden = embeds_QkD[None]  # (n, Q, k, D), n being 1 until targets have been seen, then N
    for i, layer in enumerate(model.layers):
        shared = targets.keys[i], targets.values[i], queries.keys[i], queries.values[i]
        if i + 1 == len(model.layers):
            causal_kk = causal_kk[-1:]
        hidden = _call(recompute, _decision_layer, layer, hidden, *shared, rotation, paddings, causal_kk)
    return model.norm(hidden[:, :, -1])


def _span_layer(
    layer: Any,
    hidden_1LD: Tensor,
    prefix_key: Tensor | None,
    prefix_value: Tensor | None,
    rotation: tuple[Tensor, Tensor],
    runs: Sequence[tuple[int, int]],
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer of all spans: hidden states, keys and values of the valid tokens."""
    query, key, value = _project(layer, hidden_1LD, rotation)
    prefix = None if prefix_key is None or prefix_value is None else (prefix_key, prefix_value)
    return _finish_layer(layer, hidden_1LD, _attend_causally(runs, query, key, value, prefix)), key, value


def _decision_layer(
    layer: Any,
    hidden: Tensor,
    target_key: Tensor,
    target_value: Tensor,
    query_key: Tensor,
    query_value: Tensor,
    rotation: tuple[Tensor, Tensor],
    paddings: tuple[Tensor | None, Tensor | None],
    causal_kk: Tensor,
) -> Tensor:
    """One layer of all decision spans (n, Q, k, D); as many of their last tokens as `causal_kk` has rows come out."""
    num_targets, num_queries = len(target_key), hidden.shape[1]
    query, key, value = _project(layer, hidden.flatten(0, 1), rotation)
    query, hidden = query[:, :, -len(causal_kk) :], hidden[:, :, -len(causal_kk) :]
    kv_heads, scale = key.shape[1], query.shape[-1] ** -0.5
    # (n, Q, KV heads, G, k, d)
    grid = (query * scale).unflatten(1, (kv_heads, -1)).unflatten(0, (-1, num_queries))
    own_key, own_value = (t.unflatten(0, (-1, num_queries)).unsqueeze(3) for t in (key, value))
    for_all = grid.expand(num_targets, *grid.shape[1:])
    parts = [
        _attend_shared(for_all, target_key, target_value, paddings[0], axis=0),
        _attend_shared(grid, query_key, query_value, paddings[1], axis=1),
        _attend(grid, own_key, own_value, ~causal_kk),
    ]
    attended = _merge(parts).to(value.dtype).flatten(2, 3).transpose(2, 3).flatten(3)  # (N, Q, k, H * d)
    return _finish_layer(layer, hidden, attended)


def _call(recompute: bool, layer_function: Callable[..., Any], layer: Any, hidden: Tensor, *rest: Any) -> Any:
    """The layer, or the layer under activation checkpointing.

    Its check of recomputed tensors is off: where weights are gathered layer by layer (DeepSpeed ZeRO 3) it compares the
    shapes of gathered with those of released ones.
    """
    if not (recompute and torch.is_grad_enabled()):
        return layer_function(layer, hidden, *rest)
    return checkpoint(layer_function, layer, hidden, *rest, use_reentrant=False, determinism_check="none")


def _runs_of_equal_length(valid_BT: Tensor) -> list[tuple[int, int]]:
    """(number of spans, their length) of each run of neighbouring spans with equally many valid tokens."""
    return [(len(list(run)), length) for length, run in groupby(valid_BT.sum(1).tolist())]


def _unpacked(packed_1HLd: Tensor, valid_BT: Tensor) -> Tensor:
    """Keys or values of the valid tokens as (B, H, T, d), zeros at the padding."""
    _, heads, _, d = packed_1HLd.shape
    padded_BTHd = packed_1HLd.new_zeros(*valid_BT.shape, heads, d)
    return padded_BTHd.index_put((valid_BT,), packed_1HLd[0].transpose(0, 1)).transpose(1, 2).contiguous()


def _attend_causally(
    runs: Sequence[tuple[int, int]], query: Tensor, key: Tensor, value: Tensor, prefix: tuple[Tensor, Tensor] | None
) -> Tensor:
    """(1, L, H * d): causal attention within each span, and to the prefix's keys and values if there is one."""
    sizes = [count * length for count, length in runs]
    pieces = []
    for (count, length), *packed in zip(
        runs, query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True
    ):
        q, k, v = (t[0].unflatten(1, (count, length)).transpose(0, 1) for t in packed)  # (spans, heads, T, d)
        mask = None
        if prefix is not None:
            k, v = (torch.cat([p.expand(count, -1, -1, -1), own], dim=2) for p, own in zip(prefix, (k, v), strict=True))
            num_seen = k.shape[2]
            mask = torch.ones(length, num_seen, dtype=torch.bool, device=k.device).tril(num_seen - length)
        out = _attention(q, k, v, mask)
        pieces.append(out.transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(pieces)[None]


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of (B, H, T, d) queries; without a mask it is causal.

    PyTorch's fused attention is slow to differentiate in bfloat16 on CPUs (4 to 7 times slower than two matrix products
    and a softmax), so what will be differentiated there is written out.
    """
    if query.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool).tril()
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores.masked_fill(~mask, float("-inf")).softmax(-1).to(value.dtype) @ value


def _project(layer: Any, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries (B, H, T, d), rotated keys and values (B, H / G, T, d) of one layer."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    shape = (*normed.shape[:-1], -1, attention.head_dim)
    query, key, value = (
        projection(normed).view(shape).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, *rotation)
    return query, key, value


def _finish_layer(layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    """Output projection and feed-forward part of a decoder layer."""
    hidden = hidden + layer.self_attn.o_proj(attended)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _padding(valid_BT: Tensor) -> Tensor | None:
    """(B, 1, 1, T), True at padding; None where there is none."""
    return None if valid_BT.all() else ~valid_BT[:, None, None, :]


def _attend_shared(
    grid: Tensor, key: Tensor, value: Tensor, hidden_keys: Tensor | None, *, axis: int
) -> tuple[Tensor, Tensor]:
    """Attention of a (N, Q, ...) grid to keys that belong to its targets (axis 0) or its queries (axis 1)."""
    owner_first = grid.movedim(axis, 0)  # (owner, other, KV heads, G, k, d)
    others, _, groups, k, _ = owner_first.shape[1:]
    folded = owner_first.permute(0, 2, 1, 3, 4, 5).flatten(2, 4)  # (owner, KV heads, other * G * k, d)
    out, lse = _attend(folded, key, value, hidden_keys)
    out = out.unflatten(2, (others, groups, k)).permute(0, 2, 1, 3, 4, 5).movedim(0, axis)
    lse = lse.unflatten(2, (others, groups, k)).permute(0, 2, 1, 3, 4).movedim(0, axis)
    return out, lse


def _attend(query: Tensor, key: Tensor, value: Tensor, hidden_keys: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention output and the log-sum-exp of its scores, in float32; `query` is already scaled.

    The log-sum-exp is read off the largest score and its weight: softmax is one pass over the scores, a second
    exponential would double its cost. Kept out of autocast: these products are narrow, casting them costs more.
    """
    with torch.autocast(query.device.type, enabled=False):
        scores = query.float() @ key.float().transpose(-1, -2)
        if hidden_keys is not None:
            scores = scores.masked_fill_(hidden_keys, float("-inf"))
        weights = scores.softmax(-1)
        return weights @ value.float(), scores.amax(-1) - weights.amax(-1).log()


def _merge(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The attention over all parts' keys together, from each part's own; parts broadcast over targets."""
    shares = torch.stack(torch.broadcast_tensors(*(lse for _, lse in parts))).softmax(0)[..., None]
    total = parts[0][0] * shares[0]
    for (out, _), share in zip(parts[1:], shares[1:], strict=True):
        total = torch.addcmul(total, out, share)
    return total
