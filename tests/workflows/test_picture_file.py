"""Pictures in a file instead of in memory."""

import numpy as np
import pytest

from modeling.errors import DataError
from workflows.train.picture_file import PictureFile


def test_pictures_come_back_in_order_and_outlive_the_file_object() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3)).astype(np.uint8)
    file = PictureFile()
    for picture in pictures:
        file.append(picture)
    assert len(file) == 5
    mapped = file.array()
    del file
    np.testing.assert_array_equal(mapped, pictures)
    np.testing.assert_array_equal(mapped[[3, 1, 3]], pictures[[3, 1, 3]])


def test_a_view_that_is_not_contiguous_is_stored_as_seen() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::-1]
    file = PictureFile()
    file.append(picture)
    np.testing.assert_array_equal(file.array()[0], picture)


def test_what_is_read_cannot_be_written() -> None:
    file = PictureFile()
    file.append(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        file.array()[0] = 1


def test_pictures_of_two_sizes_are_refused() -> None:
    file = PictureFile()
    file.append(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r"\(2, 3, 3\).*aspect ratio"):
        file.append(np.zeros((2, 3, 3), np.uint8))


def test_no_pictures_at_all() -> None:
    with pytest.raises(DataError, match="no pictures"):
        PictureFile().array()
