"""Pictures of one size in a file instead of in memory: a training set may be larger than the machine's memory."""

import tempfile

import numpy as np
from numpy.typing import NDArray

from modeling.errors import DataError


class PictureFile:
    """Takes pictures one by one and gives them back as one array, mapped from a temporary file that has no name.

    The system keeps in memory what is in use and drops it when others need the memory. The file goes with the array.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="psreid-pictures-")  # noqa: SIM115 (the mapped array keeps it)
        self._shape: tuple[int, ...] | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, picture: NDArray[np.uint8]) -> None:
        """Adds one more. Raises DataError when its shape is another than the first one's."""
        if self._shape is None:
            self._shape = picture.shape
        if picture.shape != self._shape:
            raise DataError(
                f"a picture of {picture.shape} (height, width, channels) follows pictures of {self._shape}: frames "
                "that are trained on together need one aspect ratio. Train on those of one kind of camera."
            )
        self._file.write(np.ascontiguousarray(picture).data)
        self._count += 1

    def array(self) -> NDArray[np.uint8]:
        """(N, *shape), read only. Raises DataError when there are none."""
        if self._shape is None:
            raise DataError("there are no pictures")
        self._file.flush()
        mapped = np.memmap(self._file, np.uint8, "r", shape=(self._count, *self._shape))
        return np.asarray(mapped)
