"""COCO-style JSON with `person_id`: one file, or one for each split, and the pictures that they name.

Boxes are `bbox` (x, y, width, height); an annotation without `person_id`, or with a negative one, is a person nobody
knows. Masks in `segmentation` are kept. The split is in a file's name (`train`, `val`, otherwise test). There are no
queries in this format: each test identity's largest box becomes one.
"""

from collections import defaultdict
from typing import Any

from modeling.errors import DataError
from workflows.archive.readers.dataset import (
    Dataset,
    LabelledPerson,
    Picture,
    Setting,
    Split,
    one_query_per_identity,
    shared_gallery,
)
from workflows.archive.readers.source import Source

KEYS = ("images", "annotations")


class Coco:
    title = "COCO-style person search"
    needs = ()
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        pictures: list[Picture] = []
        for name in [name for name in source.names if name.endswith(".json")]:
            content = source.json(name)
            if isinstance(content, dict) and all(key in content for key in KEYS):
                pictures += _pictures(source, name, content)
        if not pictures:
            raise DataError(
                f"{source.uri} has no JSON file with {' and '.join(KEYS)}. Give the folder that holds the annotations "
                "and the pictures."
            )
        test = [picture for picture in pictures if picture.split == "test"]
        return Dataset(
            pictures=pictures,
            questions=one_query_per_identity(test),
            galleries={"all": shared_gallery(test)} if test else {},
            settings=[Setting("standard", ("all",))] if test else [],
        )


def _pictures(source: Source, name: str, content: dict[str, Any]) -> list[Picture]:
    persons: dict[Any, list[LabelledPerson]] = defaultdict(list)
    people = {one["id"] for one in content.get("categories", []) if "person" in str(one.get("name", "")).lower()}
    for annotation in content["annotations"]:
        if "person_id" in annotation or not people or annotation.get("category_id") in people:
            persons[annotation.get("image_id")].append(_person(source, name, annotation))
    if not content["images"]:
        return []
    folder = source.prefix_of(str(content["images"][0].get("file_name")))
    if folder is None:
        raise DataError(
            f"{content['images'][0].get('file_name')!r}, named in {source.folder.path(name)}, is nowhere below "
            f"{source.uri}. Give the folder that holds both annotations and pictures."
        )
    pictures = [_picture(folder, image, tuple(persons[image["id"]]), _split(name)) for image in content["images"]]
    source.require_files([picture.file for picture in pictures], listed_in=name)
    return pictures


def _person(source: Source, name: str, annotation: dict[str, Any]) -> LabelledPerson:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(
            f"{source.folder.path(name)}: annotation {annotation.get('id')} has the bbox {box!r}; "
            "x, y, width and height are needed."
        )
    number = annotation.get("person_id")
    identity = None if number is None or (isinstance(number, int) and number < 0) else str(number)
    left, top, width, height = (float(value) for value in box)
    text = annotation.get("caption")
    return LabelledPerson(
        identity, (left, top, width, height), text=text, segmentation=annotation.get("segmentation") or None
    )


def _picture(folder: str, image: dict[str, Any], persons: tuple[LabelledPerson, ...], split: Split) -> Picture:
    file = str(image["file_name"])
    camera = image.get("camera_id", image.get("cam_id"))
    return Picture(
        folder + file,
        "unknown" if camera is None else f"c{camera}",
        persons,
        split,
        video=file.rpartition(".")[0].replace("/", "~"),
    )


def _split(name: str) -> Split:
    stem = name.rpartition("/")[2].lower()
    return "train" if "train" in stem else "val" if "val" in stem else "test"
