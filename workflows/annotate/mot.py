"""Persons from detection files in MOT format: frame, id, x, y, w, h, score, ... (frame from 1, id -1 if unknown).

The file of a video is found by name: `<camera_id>/<stem>`, or `<stem>` where it lies directly in the folder that was
given, with the suffix `.det.txt` or `.txt`. The images of a folder have one file, called like the folder; there the
frame number is the one that ends an image's name (`000001.jpg`). Scores are taken as they are in the file.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError
from workflows.annotate.detector import PAPER_MIN_SCORE, Detections, SceneFrame
from workflows.storage import Folder, split_uri

SUFFIXES = (".det.txt", ".gt.txt", ".txt", ".csv")
FILES_KEPT = 4  # parsed files in memory; shards of one video mostly follow one another
FrameRows = dict[int, NDArray[np.float64]]


class MotDetections:
    """A detector that looks frames up in MOT files."""

    needs_pixels = False
    min_score = PAPER_MIN_SCORE

    def __init__(self, uri: str) -> None:
        """`uri`: one file, or a folder that is searched at every depth."""
        self.folder, names = list_detection_files(uri)
        self._files = _by_key(names)
        self._read = lru_cache(FILES_KEPT)(self._read_file)

    def detect(self, frames: Sequence[SceneFrame]) -> list[Detections]:
        found = []
        for frame in frames:
            name, number = self.locate(frame.camera_id, frame.stem, frame.frame_index)
            rows = self._read(name).get(number)
            found.append(_detections(rows) if rows is not None else Detections.none())
        return found

    def locate(self, camera_id: str, stem: str, frame_index: int) -> tuple[str, int]:
        """The file that has this frame, and the frame's number in it. DataError if there is no such file."""
        plain_stem = re.sub(r"~[0-9a-f]{6}$", "", stem)  # without the digits that tell equal names apart
        for key in (f"{camera_id}/{stem}", f"{camera_id}/{plain_stem}", stem, plain_stem):
            if key in self._files:
                return self._files[key], frame_index + 1
        digits = re.search(r"\d+$", stem)
        if camera_id in self._files and digits:
            return self._files[camera_id], int(digits.group())
        listed = ", ".join(sorted(self._files)[:6])
        raise DataError(
            f"no detection file for {camera_id}/{stem}: there are {listed}, ... in {self.folder.uri}. "
            f"Call it {stem}.det.txt, or {camera_id}/{stem}.det.txt where several cameras have that name."
        )

    def _read_file(self, name: str) -> FrameRows:
        return parse_mot(self.folder.read_bytes(name), source=self.folder.path(name))


def list_detection_files(uri: str) -> tuple[Folder, list[str]]:
    """The folder and the names in it of the detection files that `uri`, a file or a folder, gives."""
    folder, name = split_uri(uri)
    if folder.exists(name):
        return folder, [name]
    folder = Folder(uri)
    names = [name for name in folder.list_files() if name.endswith(SUFFIXES)]
    if not names:
        raise DataError(f"{uri} is neither a detection file nor a folder with any ({', '.join(SUFFIXES)}).")
    return folder, names


def _by_key(names: Sequence[str]) -> dict[str, str]:
    """ "camera/stem" of files in folders, "stem" of the others -> name."""
    keys = {}
    for name in names:
        base = next(name.removesuffix(suffix) for suffix in (*SUFFIXES, "") if name.endswith(suffix))
        keys["/".join(base.split("/")[-2:])] = name
    return keys


def parse_mot(data: bytes, *, source: str) -> FrameRows:
    """Frame number (from 1) -> rows (id, x, y, w, h, score). DataError names the first line that is not MOT."""
    rows: dict[int, list[list[float]]] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.replace(",", " ").split()
        try:
            values = [float(field) for field in fields[:7]]
            frame = int(values[0])
        except (ValueError, IndexError):
            values, frame = [], 0
        if len(values) < 6 or not np.isfinite(values).all() or frame < 1:
            raise DataError(
                f"{source}, line {number}: {line[:80]!r} is not MOT (frame from 1, id, x, y, w, h, score). Correct it."
            )
        rows.setdefault(frame, []).append([*values[1:6], values[6] if len(values) > 6 else 1.0])
    return {frame: np.array(found) for frame, found in rows.items()}


def _detections(rows: NDArray[np.float64]) -> Detections:
    boxes = np.concatenate([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]], axis=1)
    tracks = [str(int(track)) if track >= 0 else None for track in rows[:, 0]]
    return Detections(boxes.astype(np.float32), rows[:, 5].astype(np.float32), tracks)
