"""Odd images come out upright, 8-bit and RGB; broken ones are refused with a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from modeling.errors import DataError
from workflows.ingest import images
from workflows.ingest.decode import DecodeFrames
from workflows.ingest.images import encode_jpeg, is_infrared, read_image
from workflows.ingest.payload import image_shard
from workflows.ingest.sources import SourceFile
from workflows.stages import ShardBatch

RED_LEFT = np.zeros((40, 60, 3), np.uint8)
RED_LEFT[:, :30] = (200, 0, 0)


def encoded(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def test_rgb_becomes_bgr():
    picture = read_image(encoded(Image.fromarray(RED_LEFT), format="PNG"))
    assert picture.image_bgr.shape == (40, 60, 3)
    assert picture.image_bgr[5, 5].tolist() == [0, 0, 200]
    assert picture.jpeg is None


def test_a_plain_jpeg_is_kept_byte_for_byte():
    data = encoded(Image.fromarray(RED_LEFT), format="JPEG", quality=80)
    assert read_image(data).jpeg == data


def test_exif_orientation_is_applied_and_the_file_is_not_kept_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned right by a quarter
    picture = read_image(encoded(Image.fromarray(RED_LEFT), format="JPEG", exif=exif, quality=95))
    assert picture.image_bgr.shape == (60, 40, 3)
    assert picture.image_bgr[5, 20, 2] > 150 > 50 > picture.image_bgr[-5, 20, 2]
    assert picture.jpeg is None


def test_transparency_is_laid_over_black():
    image = np.full((10, 10, 4), 255, np.uint8)
    image[:5, :, 3] = 0
    picture = read_image(encoded(Image.fromarray(image), format="PNG"))
    assert picture.image_bgr[2, 2].tolist() == [0, 0, 0]
    assert picture.image_bgr[8, 8].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(form):
    values = np.array([[0, 0x7FFF], [0x8000, 0xFFFF]], np.uint16)
    picture = read_image(encoded(Image.fromarray(values), format=form))
    assert picture.image_bgr[:, :, 0].tolist() == [[0, 127], [128, 255]]


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_three_channels(mode):
    picture = read_image(encoded(Image.fromarray(RED_LEFT).convert(mode), format="TIFF" if mode == "CMYK" else "PNG"))
    assert picture.image_bgr.shape == (40, 60, 3)
    assert picture.image_bgr.dtype == np.uint8


def test_floats_are_scaled_by_their_extremes():
    values = np.array([[-1.0, 0.0], [0.5, 3.0]], np.float32)
    picture = read_image(encoded(Image.fromarray(values), format="TIFF"))
    assert picture.image_bgr[:, :, 1].tolist() == [[0, 63], [95, 255]]


@pytest.mark.parametrize("data", [b"", b"no picture at all", encoded(Image.fromarray(RED_LEFT), format="JPEG")[:300]])
def test_broken_bytes_are_refused(data):
    with pytest.raises((OSError, DataError)):
        read_image(data)


def test_an_oversized_picture_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 100)
    with pytest.raises(DataError, match="more than the 100 allowed"):
        read_image(encoded(Image.fromarray(RED_LEFT), format="PNG"))


def test_infrared_means_no_colour_but_some_light():
    rng = np.random.default_rng(0)
    gray = np.repeat(rng.integers(0, 255, (64, 64, 1), np.uint8), 3, axis=2)
    assert is_infrared(gray)
    assert not is_infrared(gray // 64)
    assert not is_infrared(rng.integers(0, 255, (64, 64, 3), np.uint8))
    assert is_infrared(read_image(encode_jpeg(gray, 60)).image_bgr)


def test_a_folder_of_images_becomes_rows_and_the_broken_one_is_set_aside(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(RED_LEFT), format="JPEG"))
    (tmp_path / "b.png").write_bytes(b"nothing")
    (tmp_path / "c.png").write_bytes(encoded(Image.fromarray(RED_LEFT), format="PNG"))
    files = [SourceFile(str(path), "image", "door", path.stem) for path in sorted(tmp_path.iterdir())]
    result = DecodeFrames()(ShardBatch(image_shard(files)))
    rows = result.table.to_pylist()
    assert [(row["frame_id"], row["frame_index"], row["width"], row["height"]) for row in rows] == [
        ("door/a#0", 0, 60, 40),
        ("door/c#0", 0, 60, 40),
    ]
    assert rows[0]["image"] == (tmp_path / "a.jpg").read_bytes()
    assert [(row.row_id, row.reason) for row in result.quarantine] == [("door/b#0", "bad_image")]
