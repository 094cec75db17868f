"""OpenCV's built-in HOG people detector: no weights to fetch, any CPU.

Its score is the margin of a linear SVM: about -0.3 to 3, not a probability. Measured on PETS09-S2L1, every 12th frame,
least height 50 px, otherwise default settings, at IoU 0.5 against truth: recall 0.81, precision 0.89, 150 ms a frame
of 768 x 576 on one core. Without enlarging, recall was 0.45 to 0.56; enlarged twice it rose no further.
It finds upright, whole persons; seated, cut or heavily covered ones it mostly misses.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from workflows.annotate.detector import Detections, HogConfig, SceneFrame

LEAST_MARGIN = 0.0  # lower hits are nearly all false, and there are many
SMALL_FRAME_LINES = 720  # frames with fewer lines are enlarged unless told otherwise
SMALL_FRAME_UPSCALE = 1.5
WINDOW_WH = (64, 128)


class HogDetector:
    """Finds upright persons by histograms of gradients (Dalal and Triggs 2005)."""

    needs_pixels = True
    min_score = 0.6

    def __init__(self, config: HogConfig) -> None:
        self.config = config
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())

    def detect(self, frames: Sequence[SceneFrame]) -> list[Detections]:
        return [self._detect_one(frame.image) for frame in frames if frame.image is not None]

    def _detect_one(self, image: NDArray[np.uint8]) -> Detections:
        scale = self._upscale(image)
        enlarged = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) if scale != 1 else image
        if enlarged.shape[0] < WINDOW_WH[1] or enlarged.shape[1] < WINDOW_WH[0]:
            return Detections.none()
        windows, margins = self._hog.detectMultiScale(
            enlarged,
            hitThreshold=LEAST_MARGIN,
            winStride=(self.config.stride_px, self.config.stride_px),
            padding=(self.config.padding_px, self.config.padding_px),
            scale=self.config.pyramid_step,
            groupThreshold=0,  # OpenCV's grouping forgets the margins; ours is the NMS filter
        )
        if len(windows) == 0:
            return Detections.none()
        windows_xywh = np.asarray(windows, np.float32) / scale
        return Detections(self._body(windows_xywh), np.asarray(margins, np.float32).reshape(-1))

    def _body(self, windows_xywh: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes of the persons in the detection windows, whose margins they lose. (N, 4) xywh -> (N, 4) xyxy."""
        half = windows_xywh[:, 2:] / 2
        center = windows_xywh[:, :2] + half
        half = half * np.array([self.config.body_width, self.config.body_height], np.float32)
        return np.concatenate([center - half, center + half], axis=1)

    def _upscale(self, image: NDArray[np.uint8]) -> float:
        if self.config.upscale is not None:
            return self.config.upscale
        return SMALL_FRAME_UPSCALE if image.shape[0] < SMALL_FRAME_LINES else 1.0
