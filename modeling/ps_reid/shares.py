"""One batch over several processes, with exactly the gradient that one process would compute.

Q queries × N targets are dealt out by targets: process r holds a share of the targets and all queries, and judges the
queries on its own targets. Two kinds of terms make up the loss L of the whole grid:

- sums over pairs (text, masks, boxes, grounding), divided by a count over the grid: each process adds up its own pairs
  and divides by the count of all (`total`), so the processes' values add up to the term;
- terms that couple targets (eq. 9-11 and the metric contrast compare a query's targets with each other): they depend on
  the network only through a small matrix of cosines, one row per target. `gather` puts the rows of all processes
  together, those of the others as constants. Every process then computes the same term, and by the chain rule
  dL/dθ = Σ_r (∂L/∂rows_r)(∂rows_r/∂θ): the gradients of the processes, each through its own rows, add up to dL/dθ.

So the sum of the processes' gradients is the gradient of L, whatever the number of processes. What learns by averaging
gradients (as data-parallel training does) multiplies the loss by the number of processes. Layers that look across a
batch, as a batch norm in training mode does, would break this: they must run on their stored statistics.
"""

from typing import Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class Shares(Protocol):
    """What a process needs to know of the others' targets."""

    def gather(self, own: Tensor) -> Tensor:
        """The rows of all processes in their order; only this process's own rows carry a gradient."""
        ...

    def total(self, own: Tensor) -> Tensor:
        """The sum over processes, a constant."""
        ...


class WholeBatch:
    """One process that holds everything."""

    def gather(self, own: Tensor) -> Tensor:
        return own

    def total(self, own: Tensor) -> Tensor:
        return own.detach()


class ProcessShares:
    """The processes of torch.distributed's default group; their numbers of rows may differ."""

    def gather(self, own: Tensor) -> Tensor:
        rank, world = dist.get_rank(), dist.get_world_size()
        counts = [torch.zeros(1, dtype=torch.long, device=own.device) for _ in range(world)]
        dist.all_gather(counts, torch.tensor([len(own)], device=own.device))
        lengths = [int(count) for count in counts]
        stored = own.detach().to(torch.uint8) if own.dtype == torch.bool else own.detach()
        room = (0, 0) * (own.dim() - 1) + (0, max(lengths) - len(own))
        padded = F.pad(stored, room).contiguous()
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded)
        rows = [part[:length].to(own.dtype) for part, length in zip(parts, lengths, strict=True)]
        rows[rank] = own
        return torch.cat(rows)

    def total(self, own: Tensor) -> Tensor:
        summed = own.detach().clone()
        dist.all_reduce(summed)
        return summed
