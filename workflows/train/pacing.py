"""The pace of a training loop: batches made ahead of time, the learning rate of each step, figures of a batch."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from workflows.train.config import StageConfig

Made = TypeVar("Made")


def prefetched(make: Callable[[int], Made], first: int, end: int) -> Iterator[tuple[int, Made]]:
    """What `make` gives for each step, the next step's made in a thread meanwhile."""
    if first >= end:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, first)
        for step in range(first, end):
            made = coming.result()
            if step + 1 < end:
                coming = pool.submit(make, step + 1)
            yield step, made


def learning_rate(step: int, stage: StageConfig) -> float:
    """Of step number `step` (0 is the first): linear warm-up, then constant or a cosine down to a fiftieth."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    if stage.schedule == "constant":
        return stage.learning_rate
    done = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    return stage.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


def pair_figures(scores_NQ: Tensor, is_positive_NQ: Tensor) -> dict[str, float]:
    """How often a query's best target is a right one, and the shares of right decisions on positives and negatives."""
    has_positive = is_positive_NQ.any(0)
    best = scores_NQ.argmax(0)
    right = is_positive_NQ[best, torch.arange(len(best), device=best.device)][has_positive].float().mean()
    decided = scores_NQ > 0
    recalled, rejected = decided[is_positive_NQ].float().mean(), (~decided)[~is_positive_NQ].float().mean()
    named = {"top1": right, "recalled": recalled, "rejected": rejected}
    return {name: value.nan_to_num(1.0).item() for name, value in named.items()}
