"""Persons as colour histograms: a floor that every trained embedding has to pass. Nothing here is learned.

A crop is cut into six horizontal stripes, head to feet. Each gives a joint HSV histogram of 8 x 4 x 4 bins, the square
root of whose shares is taken (so that cosine becomes the Bhattacharyya coefficient): 768 numbers, unit length.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError
from modeling.types import ImageHWC, QueryInput

NUM_STRIPES = 6
BINS_HSV = (8, 4, 4)
RANGES_HSV = (0, 180, 0, 256, 0, 256)  # OpenCV's 8-bit HSV


class ColourHistogram:
    """A `PersonEncoder` of pictures alone."""

    identity = f"colour histogram {NUM_STRIPES} x {BINS_HSV}"
    dim = NUM_STRIPES * BINS_HSV[0] * BINS_HSV[1] * BINS_HSV[2]

    def embed_persons(self, crops: Sequence[ImageHWC]) -> NDArray[np.float32]:
        """(N, dim) unit vectors of RGB person crops."""
        return np.stack([_histogram(crop) for crop in crops]) if crops else np.zeros((0, self.dim), np.float32)

    def embed_queries(self, queries: Sequence[QueryInput]) -> NDArray[np.float32]:
        """(Q, dim) unit vectors; DataError for a query without a picture."""
        return self.embed_persons([_picture(query) for query in queries])

    def check_query(self, query: QueryInput) -> None:
        """Raises DataError for a query without a picture."""
        _picture(query)


def _picture(query: QueryInput) -> ImageHWC:
    if query.image is None:
        raise DataError(f"query {query.query_id!r} has no image, and a colour histogram reads nothing else")
    return query.image


def _histogram(crop_HWC: ImageHWC) -> NDArray[np.float32]:
    hsv = cv2.cvtColor(np.ascontiguousarray(crop_HWC), cv2.COLOR_RGB2HSV)
    vector = np.concatenate([_stripe(stripe) for stripe in np.array_split(hsv, NUM_STRIPES)])
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), dtype=np.float32)


def _stripe(hsv: NDArray[np.uint8]) -> NDArray[np.float32]:
    if not hsv.size:  # a crop of fewer rows than stripes
        return np.zeros(BINS_HSV[0] * BINS_HSV[1] * BINS_HSV[2], np.float32)
    counts = cv2.calcHist([np.ascontiguousarray(hsv)], [0, 1, 2], None, list(BINS_HSV), list(RANGES_HSV)).ravel()
    return np.asarray(np.sqrt(counts / counts.sum()), dtype=np.float32)
