"""A fast first pass over embeddings that cannot lose a member of the exact top-k.

The pass computes approximate cosines in a narrow number format and keeps the pairs that reach a query's threshold less
a proven bound of the error; what it keeps is scored exactly by the caller, so the result does not depend on it.

Bound. Rows are unit length up to rounding, |p| <= `LONGEST_ROW`. With the query rounded to q' and every number of p
rounded by a relative error of at most u, Cauchy-Schwarz gives |q.p - q'.p'| <= (|q - q'| + u |q'|) |p|. Summing D
products in float32 adds at most g |q'| |p'| with g = D 2^-24 / (1 - D 2^-24), in any order, doubled here for engines
that cut denormals. Rounding the sum to the output's format is monotonic, so the threshold is rounded likewise instead
of widening the bound.

Shapes: Q queries, N rows of a block, D width of an embedding.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

LONGEST_ROW = 1.001  # Euclidean length of a unit row whose numbers were rounded to float16
SECOND_PASS_PAIRS = 2048  # at a time: 4 MB at width 512
MOST_VECTOR_QUERIES = 3  # up to here one matrix-vector product each beats converting the block
BFLOAT16_ERROR = 2.0**-8  # relative, of rounding to 8 significant bits
FLOAT32_ERROR = 2.0**-24
Engine = Literal["float16 vectors", "bfloat16", "float32"]


@dataclass(frozen=True)
class Survivors:
    """Pairs that may belong to a top-k, sorted by query, then row."""

    queries: Tensor
    """(S,) int64 ordinals of queries."""
    rows: Tensor
    """(S,) int64 ordinals of rows in the block."""


class RowFilter:
    """Approximate cosines of fixed queries against blocks of rows. Holds scratch memory: one per thread."""

    def __init__(self, queries_QD: Tensor, *, engine: Engine | None = None) -> None:
        """`queries_QD`: float16 unit rows. `engine`: by default the fastest one of this machine."""
        self.engine: Engine = engine or choose_engine(len(queries_QD))
        dtype = {"float16 vectors": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}[self.engine]
        self._queries_QD = queries_QD.to(dtype)
        self.error_Q = _error_bound(queries_QD, self._queries_QD)
        self._wide_queries_QD = queries_QD.float()
        self._float32_error = 2 * float(
            _error_bound(queries_QD, self._wide_queries_QD).max()
        )  # also of the limit itself
        self._wide_ND = self._narrow_ND = queries_QD.new_empty((0, queries_QD.shape[1]))

    def survivors(self, rows_ND: Tensor, thresholds_Q: Tensor) -> Survivors:
        """Every pair whose exact cosine reaches its query's threshold (float32), and some that do not."""
        scores_QN = self._scores(rows_ND)
        limit_Q = (thresholds_Q.double() - self.error_Q).to(scores_QN.dtype)
        queries = (scores_QN.amax(dim=1) >= limit_Q).nonzero()[:, 0]  # mostly few, and a maximum is cheap
        place, rows = (scores_QN[queries] >= limit_Q[queries, None]).nonzero().unbind(1)
        return Survivors(queries[place], rows)

    def check_again(self, rows_ND: Tensor, found: Survivors, thresholds_Q: Tensor) -> Survivors:
        """Those of the survivors that a second pass in float32, cheaper than float64, does not rule out."""
        limit_S = (thresholds_Q - self._float32_error)[found.queries]
        kept = []
        for start in range(0, len(found.rows), SECOND_PASS_PAIRS):
            pairs = slice(start, start + SECOND_PASS_PAIRS)
            wide_SD = rows_ND[found.rows[pairs]].float().mul_(self._wide_queries_QD[found.queries[pairs]])
            kept.append(wide_SD.sum(dim=1) >= limit_S[pairs])
        is_kept_S = torch.cat(kept) if kept else torch.ones(0, dtype=torch.bool)
        return Survivors(found.queries[is_kept_S], found.rows[is_kept_S])

    def _scores(self, rows_ND: Tensor) -> Tensor:
        if self.engine == "float16 vectors":
            return torch.stack([rows_ND @ query_D for query_D in self._queries_QD])
        if len(self._wide_ND) < len(rows_ND):
            self._wide_ND = torch.empty(rows_ND.shape, dtype=torch.float32)
            self._narrow_ND = torch.empty(rows_ND.shape, dtype=self._queries_QD.dtype)
        wide_ND = self._wide_ND[: len(rows_ND)].copy_(rows_ND)
        if self.engine == "float32":
            return self._queries_QD @ wide_ND.T
        return (
            self._queries_QD @ self._narrow_ND[: len(rows_ND)].copy_(wide_ND).T
        )  # straight from float16: 5 times slower


def choose_engine(num_queries: int) -> Engine:
    """The fastest format for this many queries on this machine that keeps the error bound."""
    if num_queries <= MOST_VECTOR_QUERIES and _sums_in_float32(torch.float16):
        return "float16 vectors"
    if _has_bfloat16_products() and _sums_in_float32(torch.bfloat16):
        return "bfloat16"
    return "float32"


def _error_bound(queries_QD: Tensor, rounded_QD: Tensor) -> Tensor:
    """(Q,) float64 bound of |exact - approximate| before the sum is rounded to the output's format."""
    exact_QD, used_QD = queries_QD.double(), rounded_QD.double()
    row_error = BFLOAT16_ERROR if rounded_QD.dtype == torch.bfloat16 else 0.0
    terms = queries_QD.shape[1] * FLOAT32_ERROR
    summing = 2 * terms / (1 - terms)
    length_Q = used_QD.norm(dim=1)
    rounding_Q = (exact_QD - used_QD).norm(dim=1) + row_error * length_Q
    longest = LONGEST_ROW * (1 + row_error)
    return rounding_Q * LONGEST_ROW + summing * length_Q * longest + FLOAT32_ERROR  # the threshold is a rounded score


@lru_cache
def _sums_in_float32(dtype: torch.dtype) -> bool:
    """Whether products in this format are summed in float32, on sums that stall at 0.5 in a narrower one."""
    row = torch.full((64, 4096), 1 / 64, dtype=dtype)
    return bool((row @ row[0] == 1).all() and (row[:8] @ row.T == 1).all())


@lru_cache
def _has_bfloat16_products() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated, it is slower than float32."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
