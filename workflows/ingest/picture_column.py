"""JPEGs on their way into a table: copied once, next to each other, into what becomes the Arrow column."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

CHUNK_BYTES = 64 << 20  # only what is written to takes memory


class PictureColumn:
    """Collects pictures and gives them as one binary column.

    An encoder's own buffer is freed at once, so the next picture is made in the same, warm memory.
    """

    def __init__(self, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._finished: list[pa.Array] = []
        self._buffer: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._ends = [0]

    def append(self, picture: bytes | memoryview) -> None:
        """Adds the next row."""
        start, end = self._ends[-1], self._ends[-1] + len(picture)
        if end > len(self._buffer):
            self._finish_chunk()
            self._buffer = np.empty(max(self._chunk_bytes, len(picture)), np.uint8)
            start, end = 0, len(picture)
        self._buffer[start:end] = np.frombuffer(picture, np.uint8)
        self._ends.append(end)

    def finish(self) -> pa.ChunkedArray:
        """All rows so far; the column is empty then."""
        self._finish_chunk()
        chunks, self._finished, self._buffer = self._finished, [], np.empty(0, np.uint8)
        return pa.chunked_array(chunks, pa.binary())

    def _finish_chunk(self) -> None:
        if len(self._ends) > 1:
            offsets, data = np.array(self._ends, np.int32), self._buffer[: self._ends[-1]]
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
            self._finished.append(pa.Array.from_buffers(pa.binary(), len(self._ends) - 1, buffers))
        self._ends = [0]
