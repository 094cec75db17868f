"""Any object-detection checkpoint of `transformers` (DETR, RT-DETR, YOLOS, Deformable DETR, ...) as a person detector.

Its score is the probability of the class, 0 to 1. A folder is read without the network; anything else is a hub id.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modeling.errors import ConfigError, WeightsError
from workflows.annotate.detector import PAPER_MIN_SCORE, Detections, SceneFrame

PERSON_LABELS = frozenset({"person", "persons", "people", "pedestrian", "human"})
LEAST_PROBABILITY = 0.05  # below it nothing is given out; filters decide above it


class TransformersDetector:
    """Finds the classes called person (or pedestrian, human) with a checkpoint's own pre- and post-processing."""

    needs_pixels = True
    min_score = PAPER_MIN_SCORE

    def __init__(self, model: str, *, device: str = "cpu") -> None:
        """`model`: a folder with config, weights and preprocessor, or a hub id."""
        import torch

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"detector device {device!r} asked for, but this machine has no CUDA GPU. Use 'cpu'.")
        self.device = device
        self._model, self._processor = _load(model)
        self._model.to(device).eval()
        self._person_labels = _person_labels(model, self._model.config.id2label)

    def detect(self, frames: Sequence[SceneFrame]) -> list[Detections]:
        import torch

        images = [frame.image for frame in frames if frame.image is not None]
        sizes_hw = [image.shape[:2] for image in images]
        inputs = self._processor(images=images, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            outputs = self._model(**inputs)
        found = self._processor.post_process_object_detection(
            outputs, threshold=LEAST_PROBABILITY, target_sizes=sizes_hw
        )
        return [self._persons(one) for one in found]

    def _persons(self, found: dict[str, Any]) -> Detections:
        labels = found["labels"].cpu().numpy()
        is_person = np.isin(labels, self._person_labels)
        boxes = found["boxes"].float().cpu().numpy().reshape(-1, 4)
        return Detections(boxes[is_person], found["scores"].float().cpu().numpy()[is_person])


def _load(model: str) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    is_folder = Path(model).expanduser().is_dir()
    source = str(Path(model).expanduser()) if is_folder else model
    try:
        network = AutoModelForObjectDetection.from_pretrained(source, local_files_only=is_folder)
        processor = AutoImageProcessor.from_pretrained(source, local_files_only=is_folder)
    except (OSError, ValueError, KeyError) as error:
        kind = "the folder" if is_folder else "no folder of that name exists, and as a hub id it"
        raise WeightsError(
            f"detector {model!r}: {kind} cannot be loaded as an object-detection checkpoint of transformers "
            f"({str(error).splitlines()[0]}). Give 'hog', 'none', a folder, or a hub id such as PekingU/rtdetr_r18vd."
        ) from error
    return network, processor


def _person_labels(model: str, id2label: dict[int, str]) -> list[int]:
    labels = [int(number) for number, name in id2label.items() if name.lower() in PERSON_LABELS]
    if not labels:
        known = ", ".join(list(id2label.values())[:12])
        raise WeightsError(
            f"detector {model!r} has no class called {', '.join(sorted(PERSON_LABELS))}; its first are {known}. "
            "Give a checkpoint that was trained to find persons."
        )
    return labels
