"""What the token counts promise: how much faster the shared ways must be if a token costs the same everywhere.

Language-model tokens of Q queries on N targets (query span q, target span t, decision span k):

    plain      Q N (q + t + k)          joint   Q q + Q N (t + k)          separated   Q q + N t + Q N k

The plain way also encodes the pictures of both sides anew for every pair, the others once per query and per target, so
vision tokens (v of a query, w of a target) are counted too. The two kinds are weighed by the floating-point operations
of the weights they pass through, two per weight and token, computed from the model. Attention between tokens is left
out: it is what sharing changes least, and small beside the weights at these lengths.
"""

from dataclasses import dataclass

from torch import nn

from modeling.ps_reid.batches import Processor
from modeling.ps_reid.model import PsReid
from modeling.types import QueryInput, TargetInput

WAYS = ("plain", "joint", "separated")


@dataclass(frozen=True)
class TokenCounts:
    """Mean tokens per query, target and pair."""

    query: float
    """q: language tokens of a query span."""
    target: float
    """t: language tokens of a target span."""
    decision: float
    """k: language tokens of a decision span."""
    query_vision: float
    """v: vision tokens of a query, 0 for one without a picture."""
    target_vision: float
    """w: vision tokens of a target's scene and close-ups."""

    def language(self, way: str, num_queries: int, num_targets: int) -> float:
        """Language tokens of all pairs by one way."""
        pairs = num_queries * num_targets
        return {
            "plain": pairs * (self.query + self.target + self.decision),
            "joint": num_queries * self.query + pairs * (self.target + self.decision),
            "separated": num_queries * self.query + num_targets * self.target + pairs * self.decision,
        }[way]

    def vision(self, way: str, num_queries: int, num_targets: int) -> float:
        """Vision tokens of all pairs by one way."""
        if way == "plain":
            return num_queries * num_targets * (self.query_vision + self.target_vision)
        return num_queries * self.query_vision + num_targets * self.target_vision


@dataclass(frozen=True)
class TokenPrices:
    """Floating-point operations of one token in the weights it passes through."""

    language_flops: float
    vision_flops: float


def count_tokens(model: PsReid, queries: dict[str, QueryInput], targets: list[TargetInput]) -> TokenCounts:
    """The mean token counts of these queries and targets."""
    processor = Processor(model.config, model.vision, model.template, model.metric)
    batch = processor.queries(list(queries.values()))
    per_picture = model.query_grid[0] * model.query_grid[1]
    scene = model.scene_grid[0] * model.scene_grid[1]
    query_vision = float(batch.has_image_Q.double().mean()) * per_picture
    text = sum(len(ids) for ids in batch.text_ids) / len(queries)
    close_ups = sum(min(len(t.boxes_xyxy_px), model.config.close_ups) for t in targets) / len(targets)
    target = scene + close_ups * per_picture
    return TokenCounts(
        query=len(model.template.system_ids) + query_vision + text + 1,
        target=target,
        decision=len(model.template.question_ids),
        query_vision=query_vision,
        target_vision=target,
    )


def token_prices(model: PsReid) -> TokenPrices:
    """Two operations per weight of every matrix that a token is multiplied with."""
    return TokenPrices(
        language_flops=2.0 * _weights_per_token(model.language.model.layers),
        vision_flops=2.0 * (_weights_per_token(model.vision) + _weights_per_token(model.target_adapter)),
    )


def promised_ratio(counts: TokenCounts, prices: TokenPrices, way: str, num_queries: int, num_targets: int) -> float:
    """How many times faster than the plain way, by tokens weighed by their price."""

    def cost(one: str) -> float:
        language = counts.language(one, num_queries, num_targets) * prices.language_flops
        return language + counts.vision(one, num_queries, num_targets) * prices.vision_flops

    return cost("plain") / cost(way)


def _weights_per_token(module: nn.Module) -> int:
    """Numbers in the matrices of a module through which every token goes; embeddings are looked up, not multiplied."""
    linear = sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))
    return linear + sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))
