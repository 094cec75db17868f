"""A quick look at how IRM or IRM++ finds people whom training never showed: held-out identities of the same tables.

Small on purpose: it guides sweeps. The protocol of the paper is `psreid evaluate reid`.

Shapes: Q queries, G gallery pictures, D width of a feature.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.errors import DataError
from modeling.instruct_reid.instructions import Task
from modeling.instruct_reid.irm import Irm, QueryPixels
from modeling.instruct_reid.objective import IrmBatch
from modeling.metrics.retrieval import Ranking, score_rankings
from workflows.train.irm_batching import ReidBatcher
from workflows.train.irm_sampler import TaskSampler
from workflows.train.irm_samples import ReidSamples

MOST_IDENTITIES = 64  # asked for in one task
PICTURES = 4
HELD_OUT = 5  # tells this draw from the others of the same seed


def split_held_out(
    samples: ReidSamples, share: float, seed: int, tasks: tuple[Task, ...]
) -> tuple[ReidSamples, ReidSamples | None]:
    """What is trained on, and a share of the identities that is not; None where the share is 0.

    Raises DataError when either side is left with fewer than two identities, or none that the tasks can ask for.
    """
    if not share:
        return samples, None
    order = np.random.default_rng([seed, HELD_OUT]).permutation(samples.num_identities)
    held_out = order[: round(share * len(order))]
    if min(len(held_out), len(order) - len(held_out)) < 2:
        raise DataError(
            f"held_out_share {share:g} of {len(order)} identities leaves fewer than two to train on or to look at. "
            "Change it, or train on a larger archive."
        )
    is_held_out = np.isin(samples.identity, held_out)
    kept, looked_at = _only(samples, ~is_held_out), _only(samples, is_held_out)
    TaskSampler(
        looked_at, tasks, identities_per_step=2, pictures_per_identity=PICTURES, seed=seed
    )  # raises here, not at the end
    return kept, looked_at


def evaluate_held_out(model: Irm, samples: ReidSamples, tasks: tuple[Task, ...], *, seed: int) -> dict[str, float]:
    """`eval_mAP`, the mean over tasks, and `eval_mAP_<task>` of each, fractions of 1.

    IRM's gallery listens to the task's instruction, IRM++'s does not (§IV-C).
    """
    sampler = TaskSampler(samples, tasks, identities_per_step=2, pictures_per_identity=PICTURES, seed=seed)
    figures: dict[str, float] = {}
    for task in sampler.tasks:
        identities = min(MOST_IDENTITIES, sampler.num_identities(task))
        figures[f"eval_mAP_{task}"] = _mean_ap(model, samples, task, identities, seed)
    return {"eval_mAP": float(np.mean(list(figures.values())))} | figures


def _mean_ap(model: Irm, samples: ReidSamples, task: Task, identities: int, seed: int) -> float:
    sampler = TaskSampler(samples, [task], identities_per_step=identities, pictures_per_identity=PICTURES, seed=seed)
    batch = ReidBatcher(samples, model, seed=seed, is_plain=True).batch(sampler.draw(0), 0)
    with torch.no_grad():
        queries_QD, gallery_GD = _features(model, batch)
    scores_QG = (queries_QD @ gallery_GD.T).numpy()
    asked, shown = batch.identity[batch.is_query].numpy(), batch.identity[~batch.is_query].numpy()
    rankings = [
        Ranking(is_right=(shown == person)[np.argsort(-row, kind="stable")])
        for person, row in zip(asked, scores_QG, strict=True)
    ]
    return score_rankings(rankings, max_rank=1).mean_ap


def _features(model: Irm, batch: IrmBatch) -> tuple[Tensor, Tensor]:
    """(Q, D) and (G, D) unit vectors."""
    is_text = batch.task == "T2I"
    fused = model.query_features(QueryPixels(None if is_text else batch.pixels, batch.instructions))
    is_gallery = ~batch.is_query
    if model.config.kind == "irm" and not is_text:
        return fused[batch.is_query], fused[is_gallery]
    return fused[batch.is_query], model.gallery_features(batch.pixels[is_gallery])


def _only(samples: ReidSamples, is_kept: NDArray[np.bool_]) -> ReidSamples:
    """Some of the crops, their identities numbered anew."""
    rows = np.flatnonzero(is_kept)
    return replace(
        samples,
        crops=samples.crops[rows],
        identity=np.unique(samples.identity[rows], return_inverse=True)[1].astype(np.int64),
        clothes=samples.clothes[rows],
        knows_clothes=samples.knows_clothes[rows],
        camera=samples.camera[rows],
        is_infrared=samples.is_infrared[rows],
        texts=[samples.texts[int(row)] for row in rows],
    )
