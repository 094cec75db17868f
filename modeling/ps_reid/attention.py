"""The language model run over spans whose keys and values are shared between pairs.

A pair's sequence is  query span · target span · decision span  (`prompt.py`). Two modes of attention:

- joint: the paper's causal attention. The query span sees nothing behind it, so its keys and values are computed once
  per query; target and decision spans are then run on top of them (`run_span` with `prefix`).
- separated: the target span does not see the query span, so its keys and values too are computed once per target. A
  pair then costs only its decision tokens (`run_decisions`), which attend to both and to themselves.

Both equal a plain forward of the same LlamaModel under the same mask; no weights are copied or changed, so LoRA modules
that peft put in place are simply called. It knows nothing of images, prompts or losses.

Shapes: B spans, Q queries, N targets, T tokens of a span, P tokens of its prefix, k tokens of a decision, D width,
H heads, G heads per key-value head, d width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaModel, apply_rotary_pos_emb


@dataclass(frozen=True)
class SpanKV:
    """Keys (already rotated) and values of B spans, per layer."""

    keys: Sequence[Tensor]
    """One (B, H / G, T, d) per layer."""
    values: Sequence[Tensor]
    valid_BT: Tensor
    """False where a span is padded."""

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def select(self, rows: Tensor | slice) -> "SpanKV":
        """The chosen spans; a slice shares memory, an index tensor copies."""
        return SpanKV([k[rows] for k in self.keys], [v[rows] for v in self.values], self.valid_BT[rows])

    def trimmed(self, num_tokens: int) -> "SpanKV":
        """The first `num_tokens` positions of every span."""
        keys = [k[:, :, :num_tokens] for k in self.keys]
        return SpanKV(keys, [v[:, :, :num_tokens] for v in self.values], self.valid_BT[:, :num_tokens])


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


def run_span(
    model: LlamaModel, embeds_BTD: Tensor, valid_BT: Tensor, positions_BT: Tensor, prefix: SpanKV | None = None
) -> tuple[Tensor, SpanKV]:
    """Final hidden states (B, T, D) of causal spans, and their keys and values (the prefix not included).

    `prefix` holds one span for all, or one for each. Every span must begin with a valid token.
    """
    rotation = model.rotary_emb(embeds_BTD, position_ids=positions_BT)
    mask_B1TS = _causal_mask(valid_BT, prefix)
    hidden, keys, values = embeds_BTD, [], []
    for i, layer in enumerate(model.layers):
        query, key, value = _project(layer, hidden, rotation)
        keys.append(key)
        values.append(value)
        if prefix is not None:
            key = torch.cat([prefix.keys[i].expand(key.shape[0], -1, -1, -1), key], dim=2)
            value = torch.cat([prefix.values[i].expand(value.shape[0], -1, -1, -1), value], dim=2)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_B1TS, enable_gqa=True)
        hidden = _finish_layer(layer, hidden, attended.transpose(1, 2).flatten(2))
    return model.norm(hidden), SpanKV(keys, values, valid_BT)


def run_decisions(
    model: LlamaModel, embeds_QkD: Tensor, positions_k: Tensor, queries: SpanKV, targets: SpanKV
) -> Tensor:
    """Final hidden states (N, Q, k, D) of the decision spans of every query with every target, in separated mode.

    Attention over the three key sets (query's, target's, own) is computed apart and merged by their log-sum-exp, so the
    shared keys and values are read once per matrix product and never copied per pair.
    """
    num_targets, (num_queries, k, _) = targets.valid_BT.shape[0], embeds_QkD.shape
    cos, sin = model.rotary_emb(embeds_QkD, position_ids=positions_k[None])
    causal_kk = torch.ones(k, k, dtype=torch.bool, device=embeds_QkD.device).tril()
    hidden = embeds_QkD.expand(num_targets, -1, -1, -1)
    for i, layer in enumerate(model.layers):
        flat = hidden.flatten(0, 1)
        query, key, value = _project(layer, flat, (cos, sin))
        kv_heads, scale = key.shape[1], query.shape[-1] ** -0.5
        # (N, Q, KV heads, G, k, d)
        grid = (query * scale).unflatten(1, (kv_heads, -1)).unflatten(0, (num_targets, num_queries))
        own_key, own_value = (t.unflatten(0, (num_targets, num_queries)).unsqueeze(3) for t in (key, value))
        parts = [
            _attend_shared(grid, queries.keys[i], queries.values[i], queries.valid_BT, axis=1),
            _attend_shared(grid, targets.keys[i], targets.values[i], targets.valid_BT, axis=0),
            _attend(grid, own_key, own_value, causal_kk),
        ]
        attended = _merge(parts).to(value.dtype).flatten(2, 3).transpose(2, 3).flatten(3)  # (N, Q, k, H * d)
        hidden = _finish_layer(layer, hidden, attended)
    return model.norm(hidden)


def _causal_mask(valid_BT: Tensor, prefix: SpanKV | None) -> Tensor:
    """(B, 1, T, P + T) booleans: which keys each token may see."""
    num_spans, num_tokens = valid_BT.shape
    causal_TT = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=valid_BT.device).tril()
    own = causal_TT & valid_BT[:, None, :]
    if prefix is None:
        return own[:, None]
    seen = prefix.valid_BT[:, None, :].expand(num_spans, num_tokens, -1)
    return torch.cat([seen, own], dim=2)[:, None]


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


def _attend_shared(grid: Tensor, key: Tensor, value: Tensor, valid: Tensor, *, axis: int) -> tuple[Tensor, Tensor]:
    """Attention of a (N, Q, ...) grid to keys that belong to its targets (axis 0) or its queries (axis 1)."""
    owner_first = grid.movedim(axis, 0)  # (owner, other, KV heads, G, k, d)
    others, groups, k = owner_first.shape[1], *owner_first.shape[3:5]
    folded = owner_first.permute(0, 2, 1, 3, 4, 5).flatten(2, 4)  # (owner, KV heads, other * G * k, d)
    out, lse = _attend(folded, key, value, valid[:, None, None, :])
    out = out.unflatten(2, (others, groups, k)).permute(0, 2, 1, 3, 4, 5).movedim(0, axis)
    lse = lse.unflatten(2, (others, groups, k)).permute(0, 2, 1, 3, 4).movedim(0, axis)
    return out, lse


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention output and the log-sum-exp of its scores, in float32; `query` is already scaled.

    Kept out of autocast: these products are narrow, and casting them costs more than it saves.
    """
    with torch.autocast(query.device.type, enabled=False):
        scores = (query.float() @ key.float().transpose(-1, -2)).masked_fill(~mask, float("-inf"))
        lse = scores.logsumexp(-1)
        weights = (scores - lse.clamp(min=torch.finfo(scores.dtype).min)[..., None]).exp()
        return weights @ value.float(), lse


def _merge(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The attention over all parts' keys together, from each part's own attention."""
    share = torch.stack([lse for _, lse in parts]).softmax(0)
    return sum(
        (out * w[..., None].to(out.dtype) for (out, _), w in zip(parts, share, strict=True)), start=0.0 * parts[0][0]
    )
