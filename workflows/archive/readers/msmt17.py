"""MSMT17: `list_{train,val,query,gallery}.txt` of lines `0000/0000_000_01_0303morning_0015_0.jpg 0`.

Version 1 has its pictures in `train` and `test`, version 2 (faces blurred) in `mask_train_v2` and `mask_test_v2`. The
camera is the third part of a file's name. Training and test identities are numbered from 0 each: a test identity 5 is
another person than a training identity 5, so training identities get a `t` in front.
"""

from workflows.archive.readers.dataset import Dataset, LabelledPerson, Picture, Question, Setting, Split, shared_gallery
from workflows.archive.readers.source import Source

LINE = "a picture and its identity, as in 0000/0000_000_01_0303morning_0015_0.jpg 0"
FOLDERS = {"train": ("train/", "mask_train_v2/"), "test": ("test/", "mask_test_v2/")}
PUBLISHED = {
    "train and val pictures": 32_621,
    "train identities": 1_041,
    "queries": 11_659,
    "gallery pictures": 82_161,
}


class Msmt17:
    title = "MSMT17"
    needs = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
    variants = ()

    def read(self, source: Source, variant: str | None) -> Dataset:
        splits: list[tuple[str, Split]] = [("train", "train"), ("val", "val"), ("gallery", "test")]
        pictures = [
            Picture(name, camera, (LabelledPerson(identity),), split)
            for part, split in splits
            for name, identity, camera in _read_list(source, part)
        ]
        questions = [
            Question(name.rpartition("/")[2].rpartition(".")[0], identity, "Trad", file=name, camera_id=camera)
            for name, identity, camera in _read_list(source, "query")
        ]
        gallery = [picture for picture in pictures if picture.split == "test"]
        return Dataset(
            pictures=pictures,
            questions=questions,
            galleries={"all": shared_gallery(gallery)},
            settings=[Setting("standard", ("all",), ("same camera",))],
            published=PUBLISHED,
        )


def _read_list(source: Source, part: str) -> list[tuple[str, str, str]]:
    """(file, identity, camera) of every line of a list."""
    role = "train" if part in ("train", "val") else "test"
    listed_in = f"list_{part}.txt"
    folder = next((folder for folder in FOLDERS[role] if source.has(folder)), FOLDERS[role][0])
    mark = "t" if role == "train" else ""
    rows = []
    for number, line in source.text_lines(listed_in):
        name, _, identity = line.rpartition(" ")
        parts = name.rpartition("/")[2].split("_")
        if not identity.isdigit() or len(parts) < 3 or not parts[2].isdigit():
            raise source.bad_line(listed_in, number, line, LINE)
        rows.append((folder + name, f"{mark}{int(identity)}", f"c{int(parts[2])}"))
    source.require_files([row[0] for row in rows], listed_in=listed_in)
    return rows
