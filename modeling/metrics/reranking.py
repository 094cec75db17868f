"""k-reciprocal re-ranking (Zhong et al., CVPR 2017): distances refined by whose neighbours agree.

Needs every distance within queries and gallery at once, (Q + G)² numbers, so it is for galleries that fit in memory.

Shapes: Q queries; G gallery pictures; A = Q + G, queries first.
"""

import numpy as np
import numpy.typing as npt

from modeling.errors import DataError
from modeling.metrics.retrieval import Array

MOST_PICTURES = 20_000  # A; beyond it the matrices alone take more than 8 GB


def rerank(
    features_QD: npt.ArrayLike, features_GD: npt.ArrayLike, *, k1: int = 20, k2: int = 6, original_share: float = 0.3
) -> Array:
    """(Q, G) re-ranked distances of unit vectors; `original_share` is λ of the paper's eq. 12.

    Raises DataError when there are more pictures than memory can be expected to hold.
    """
    features_AD = np.concatenate([np.asarray(features_QD, np.float64), np.asarray(features_GD, np.float64)])
    num_queries, num_all = len(np.asarray(features_QD)), len(features_AD)
    if num_all > MOST_PICTURES:
        raise DataError(
            f"re-ranking {num_all} pictures needs a matrix of {num_all} x {num_all} distances; it is for at most "
            f"{MOST_PICTURES}. Score without re-ranking, or take a smaller gallery."
        )
    if not 1 <= k2 <= k1:
        raise DataError(f"re-ranking needs 1 <= k2 <= k1, got k1 = {k1}, k2 = {k2}")
    distance_AA = np.maximum(2 - 2 * features_AD @ features_AD.T, 0)
    distance_AA /= np.maximum(distance_AA.max(axis=0, keepdims=True), 1e-12)  # each column by its own largest
    distance_AA = distance_AA.T
    order_AA = np.argsort(distance_AA, axis=1, kind="stable")
    weights_AA = _neighbour_weights(distance_AA, order_AA, min(k1, num_all - 1))
    if k2 > 1:
        weights_AA = np.stack([weights_AA[order_AA[row, :k2]].mean(axis=0) for row in range(num_all)])
    jaccard_QG = _jaccard(weights_AA, num_queries)
    return (1 - original_share) * jaccard_QG + original_share * distance_AA[:num_queries, num_queries:]


def _neighbour_weights(distance_AA: Array, order_AA: npt.NDArray[np.intp], k1: int) -> Array:
    """(A, A) each picture's expanded k-reciprocal neighbours, weighted by exp(-distance) to a sum of 1."""
    weights_AA = np.zeros_like(distance_AA)
    half = round(k1 / 2)
    near = [_reciprocal(order_AA, row, k1) for row in range(len(order_AA))]
    nearer = [_reciprocal(order_AA, row, half) for row in range(len(order_AA))]
    for row, own in enumerate(near):
        expanded = own
        for candidate in own:
            theirs = nearer[candidate]
            if len(np.intersect1d(theirs, own)) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        weight = np.exp(-distance_AA[row, expanded])
        weights_AA[row, expanded] = weight / weight.sum()
    return weights_AA


def _reciprocal(order_AA: npt.NDArray[np.intp], row: int, k: int) -> npt.NDArray[np.intp]:
    """Pictures among the row's first k + 1 that have the row among their own first k + 1."""
    forward = order_AA[row, : k + 1]
    return forward[(order_AA[forward, : k + 1] == row).any(axis=1)]


def _jaccard(weights_AA: Array, num_queries: int) -> Array:
    """(Q, G) 1 - Σ min / Σ max of two weight vectors whose sums are 1."""
    result = np.empty((num_queries, len(weights_AA) - num_queries))
    gallery_GA = weights_AA[num_queries:]
    for row in range(num_queries):
        used = np.flatnonzero(weights_AA[row])
        shared_G = np.minimum(weights_AA[row, used], gallery_GA[:, used]).sum(axis=1)
        result[row] = 1 - shared_G / (2 - shared_G)
    return result
