"""Pictures become one binary column, whatever chunks they fall into."""

import pyarrow as pa
import pytest

from workflows.ingest.picture_column import PictureColumn

PICTURES = [b"abc", b"", b"defgh", b"0123456789", b"i"]


@pytest.mark.parametrize("chunk_bytes", [1, 8, 1 << 20])
def test_pictures_come_back_in_order(chunk_bytes: int) -> None:
    column = PictureColumn(chunk_bytes=chunk_bytes)
    for picture in PICTURES:
        column.append(picture)
    found = column.finish()
    assert found.type == pa.binary() and found.to_pylist() == PICTURES
    assert column.finish().to_pylist() == []
