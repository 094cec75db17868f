"""What is known about clothes: shop pictures of them, attributes of their wearers, and cuts from a person's picture."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from modeling.instruct_reid.attributes import describe_attributes
from modeling.types import ImageHWC
from workflows.index.frames import decode_image
from workflows.schema import WARDROBE, require_table
from workflows.storage import Folder

UPPER_CLOTHES = (0.14, 0.54, 0.12, 0.88)
"""Where the upper clothes are in a standing person's box: top, bottom, left, right, as shares of its sides."""


@dataclass(frozen=True)
class Wardrobe:
    """Pictures (RGB) and attributes by clothes_id; either may be missing."""

    pictures: Mapping[str, ImageHWC] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def picture_of(self, clothes_id: str | None, worn: ImageHWC) -> ImageHWC:
        """The clothes template (§IV-A, CTCC): the shop's picture, else a cut from a picture of someone wearing it."""
        found = self.pictures.get(clothes_id or "")
        return cut_upper_clothes(worn) if found is None else found

    def describe(self, clothes_id: str | None, text: str | None, *, key: str) -> str | None:
        """Sentences from the wearer's attributes, else the given text; `key` decides the wording."""
        known = self.attributes.get(clothes_id or "")
        if not known:
            return text
        return describe_attributes(known, keyed_chance(key))


def keyed_chance(*parts: str | int) -> np.random.Generator:
    """Random numbers that depend on the parts alone."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def cut_upper_clothes(person: ImageHWC) -> ImageHWC:
    """The part of a person's crop where the upper clothes are."""
    height, width = person.shape[:2]
    top, bottom, left, right = UPPER_CLOTHES
    rows = slice(int(top * height), max(int(bottom * height), int(top * height) + 1))
    columns = slice(int(left * width), max(int(right * width), int(left * width) + 1))
    return np.ascontiguousarray(person[rows, columns])


def open_wardrobe(frames_uri: str) -> Wardrobe:
    """The wardrobe beside a frames folder (`../wardrobe/wardrobe.parquet`, as `psreid synth` writes it), or none."""
    folder = Folder(frames_uri.rstrip("/").rpartition("/")[0] or ".").child("wardrobe")
    if not folder.exists("wardrobe.parquet"):
        return Wardrobe()
    require_table(folder.read_schema("wardrobe.parquet"), WARDROBE, source=folder.path("wardrobe.parquet"))
    return _from_table(folder.read_table("wardrobe.parquet"), folder.path("wardrobe.parquet"))


def _from_table(table: pa.Table, source: str) -> Wardrobe:
    rows = table.to_pylist()
    pictures = {
        row["clothes_id"]: decode_image(row["picture"], what=f"the picture of {row['clothes_id']!r} in {source}")
        for row in rows
        if row["picture"]
    }
    attributes = {
        row["clothes_id"]: {entry["name"]: entry["word"] for entry in row["attributes"]}
        for row in rows
        if row["attributes"]
    }
    return Wardrobe(pictures, attributes)
