"""Spans and decisions against the Hugging Face LlamaModel itself, under the mask that each mode stands for."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from modeling.ps_reid.attention import SpanKV, run_decisions, run_spans, stack_spans

WIDTH = 32
TOLERANCE = 2e-5


@pytest.fixture(params=[4, 2, 1], ids=lambda heads: f"{heads} key-value heads")
def llama(request: pytest.FixtureRequest) -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=request.param, intermediate_size=48,
    )  # fmt: skip
    model = LlamaModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.mul_(10)  # sharp attention, so that a wrong mask shows
    return model


def spans(lengths: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Random embeddings (T, D) of each length."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, WIDTH, generator=generator) for length in lengths]


def padded(rows: Sequence[Tensor], gap: Sequence[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as one batch with validity and positions; `gap` moves each row's last token that far to the right."""
    gap = gap or [0] * len(rows)
    longest = max(len(row) + g for row, g in zip(rows, gap, strict=True))
    embeds, valid = torch.full((len(rows), longest, WIDTH), 7.0), torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, (row, g) in enumerate(zip(rows, gap, strict=True)):
        places = [*range(len(row) - 1), len(row) - 1 + g]
        embeds[i, places], valid[i, places] = row, True
    return embeds, valid, valid.cumsum(1) - 1


def plain(llama: LlamaModel, embeds_TD: Tensor, positions_T: Tensor, seen_TT: Tensor) -> Tensor:
    """Final states (T, D) of one sequence under an explicit mask, by the model's own forward."""
    mask = torch.zeros(seen_TT.shape).masked_fill(~seen_TT, torch.finfo(torch.float32).min)
    with torch.no_grad():
        output = llama(
            inputs_embeds=embeds_TD[None],
            attention_mask=mask[None, None],
            position_ids=positions_T[None],
            use_cache=False,
        )
    return output.last_hidden_state[0]


def causal(num_tokens: int) -> Tensor:
    return torch.ones(num_tokens, num_tokens, dtype=torch.bool).tril()


@pytest.mark.parametrize("gap", [None, [0, 3, 0, 1]], ids=["padded at the end", "padded in the middle"])
def test_spans_equal_the_models_own_forward(llama: LlamaModel, gap: list[int] | None) -> None:
    rows = spans([5, 9, 9, 1])
    embeds, valid, positions = padded(rows, gap)
    with torch.no_grad():
        hidden, kv = run_spans(llama, embeds, valid, positions)
    for i, row in enumerate(rows):
        expected = plain(llama, row, torch.arange(len(row)), causal(len(row)))
        torch.testing.assert_close(hidden[i, valid[i]], expected, atol=TOLERANCE, rtol=0)
    assert not hidden[~valid].any() and not kv.keys[0].transpose(1, 2)[~valid].any()
    assert kv.keys[0].shape == (4, llama.config.num_key_value_heads, embeds.shape[1], 8)


def test_spans_on_a_prefix_equal_one_long_sequence(llama: LlamaModel) -> None:
    (prefix,), rows = spans([6], seed=1), spans([4, 7, 7])
    embeds, valid, positions = padded(rows)
    with torch.no_grad():
        _, kv = run_spans(llama, prefix[None], torch.ones(1, 6, dtype=torch.bool), torch.arange(6)[None])
        hidden, _ = run_spans(llama, embeds, valid, positions + 6, kv)
    for i, row in enumerate(rows):
        expected = plain(llama, torch.cat([prefix, row]), torch.arange(6 + len(row)), causal(6 + len(row)))[6:]
        torch.testing.assert_close(hidden[i, valid[i]], expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("num_decision_tokens", [1, 3])
def test_decisions_equal_one_masked_sequence_per_pair(llama: LlamaModel, num_decision_tokens: int) -> None:
    """Query span, then target span that does not see it, then a decision that sees both, at positions with gaps."""
    queries, targets, decisions = spans([3, 6, 2], 2), spans([7, 4], 3), spans([num_decision_tokens] * 3, 4)
    target_start, decision_start = 10, 30
    query_kv, target_kv = _encode(llama, queries, 0), _encode(llama, targets, target_start)
    positions_k = decision_start + torch.arange(num_decision_tokens)
    with torch.no_grad():
        states_NQD = run_decisions(llama, torch.stack(decisions), positions_k, query_kv, target_kv)
    assert states_NQD.shape == (2, 3, WIDTH)
    for n, target in enumerate(targets):
        for q, (query, decision) in enumerate(zip(queries, decisions, strict=True)):
            sequence = torch.cat([query, target, decision])
            seen = causal(len(sequence))
            seen[len(query) : len(query) + len(target), : len(query)] = False
            starts = ((0, query), (target_start, target), (decision_start, decision))
            positions = torch.cat([start + torch.arange(len(span)) for start, span in starts])
            expected = plain(llama, sequence, positions, seen)[-1]
            torch.testing.assert_close(states_NQD[n, q], expected, atol=TOLERANCE, rtol=0)


def test_gradients_of_decisions_equal_those_of_the_plain_forward(llama: LlamaModel) -> None:
    """Training runs through the same code: what the shared keys and values receive must be the plain gradient."""
    query, target, decision = (s[0] for s in (spans([4], 5), spans([5], 6), spans([2], 7)))
    seen = causal(11)
    seen[4:9, :4] = False
    positions = torch.arange(11)

    def shared(q: Tensor, t: Tensor, d: Tensor) -> Tensor:
        ones = torch.ones(1, 9, dtype=torch.bool)
        _, query_kv = run_spans(llama, q[None], ones[:, :4], positions[None, :4])
        _, target_kv = run_spans(llama, t[None], ones[:, :5], positions[None, 4:9])
        return run_decisions(llama, d[None], positions[9:], query_kv, target_kv)[0, 0]

    def unshared(q: Tensor, t: Tensor, d: Tensor) -> Tensor:
        mask = torch.zeros(11, 11).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
        embeds = torch.cat([q, t, d])[None]
        return llama(inputs_embeds=embeds, attention_mask=mask, position_ids=positions[None]).last_hidden_state[0, -1]

    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    gradients = []
    for forward in (shared, unshared):
        inputs = [s.clone().requires_grad_() for s in (query, target, decision)]
        weight = llama.layers[0].self_attn.k_proj.weight
        gradients.append(torch.autograd.grad((forward(*inputs) * direction).sum(), [*inputs, weight]))
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)


def test_stacking_pads_and_selecting_undoes_it(llama: LlamaModel) -> None:
    alone = [_encode(llama, [row], 0) for row in spans([3, 6, 2])]
    stacked = stack_spans(alone)
    assert stacked.valid_BT.sum(1).tolist() == [3, 6, 2]
    assert stacked.num_bytes == 3 * 6 * 2 * 3 * llama.config.num_key_value_heads * 8 * 4
    for i, one in enumerate(alone):
        row, length = stacked.select(torch.tensor([i])), one.valid_BT.shape[1]
        for got, expected in zip(row.keys + row.values, one.keys + one.values, strict=True):
            torch.testing.assert_close(got[:, :, :length], expected)


def _encode(llama: LlamaModel, rows: Sequence[Tensor], start: int) -> SpanKV:
    embeds, valid, positions = padded(rows)
    with torch.no_grad():
        return run_spans(llama, embeds, valid, start + positions)[1]
