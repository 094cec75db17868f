"""OmniReID: lists `train*.txt`, `query*.txt`, `gallery*.txt` of one task, and the pictures that they name.

Lines are `picture instruction identity clothes [camera]`. The instruction is a picture of clothes (cc, ctcc) or the
key of a caption in a JSON file `{key: caption}` (attr, t2i); the tasks sc and cross ignore it. Without a camera
nothing is junk.
"""

import posixpath
from dataclasses import dataclass

from modeling.errors import DataError
from workflows.archive.readers.dataset import Dataset, LabelledPerson, Picture, Question, Setting, Split, shared_gallery
from workflows.archive.readers.source import Source

TASKS = {"cc": "CC", "ctcc": "CTCC", "attr": "LI", "t2i": "T2I", "sc": "Trad", "cross": "VI"}
BY_PICTURE, BY_CAPTION = ("cc", "ctcc"), ("attr", "t2i")
LINE = "picture, instruction, identity, clothes and perhaps a camera, with spaces between them"


class OmniReid:
    title = "OmniReID lists"
    needs = ()
    variants = tuple(TASKS)

    def read(self, source: Source, variant: str | None) -> Dataset:
        return read_lists(source, variant or self.variants[0])


@dataclass(frozen=True)
class Line:
    """One line of a list."""

    file: str
    instruction: str
    identity: str
    clothes_id: str
    camera_id: str | None


def read_lists(source: Source, task: str) -> Dataset:
    """The data set of the one list of each kind that lies in the source."""
    lists = {role: _only_list(source, role) for role in ("train", "query", "gallery")}
    captions = _captions(source) if task in BY_CAPTION else {}
    pictures: list[Picture] = []
    splits: tuple[tuple[str, Split], ...] = (("train", "train"), ("gallery", "test"))
    for role, split in splits:
        pictures += [_picture(line, split, captions) for line in _read_list(source, lists[role])]
    queries = _read_list(source, lists["query"])
    folder = _common_folder(source, [line.instruction for line in queries]) if task in BY_PICTURE else ""
    questions = [_question(number, line, task, captions, folder) for number, line in enumerate(queries)]
    gallery = {picture.frame_id: picture for picture in pictures if picture.split == "test"}
    return Dataset(
        pictures=pictures,
        questions=questions,
        galleries={"all": shared_gallery(list(gallery.values()))},
        settings=[Setting("standard", ("all",), ("same camera",))],
    )


def _only_list(source: Source, role: str) -> str:
    found = [
        name
        for name in source.names
        if name.endswith(".txt") and role in name.rpartition("/")[2].lower() and not name.endswith("README.txt")
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{source.uri} has no list *{role}*.txt. Put the lists of one task beside the pictures.")
    raise DataError(
        f"{source.uri} has {len(found)} lists *{role}*.txt ({', '.join(found[:3])}, ...), but one data set at a time "
        "is read. Give the folder of one, or move the other lists away."
    )


def _read_list(source: Source, listed_in: str) -> list[Line]:
    lines = []
    for number, text in source.text_lines(listed_in):
        parts = text.split()
        if len(parts) not in (4, 5):
            raise source.bad_line(listed_in, number, text, LINE)
        camera = f"c{parts[4]}" if len(parts) == 5 else None
        lines.append(Line(parts[0], parts[1], parts[2], f"{parts[2]}-{parts[3]}", camera))
    if not lines:
        raise DataError(f"{source.folder.path(listed_in)} is empty. Download it again.")
    folder = _common_folder(source, [line.file for line in lines])
    found = [Line(folder + line.file, *list(vars(line).values())[1:]) for line in lines]
    source.require_files([line.file for line in found], listed_in=listed_in)
    return found


def _common_folder(source: Source, files: list[str]) -> str:
    """The folder below the source to which the names in a list are relative."""
    folder = source.prefix_of(posixpath.normpath(files[0]))
    if folder is None:
        raise DataError(
            f"{source.folder.path(files[0])} is named in a list but is nowhere below {source.uri}. Give the folder "
            "that holds both the lists and the pictures."
        )
    return folder


def _captions(source: Source) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in source.names:
        if name.endswith(".json"):
            content = source.json(name)
            if isinstance(content, dict):
                found |= {str(key): str(text) for key, text in content.items() if isinstance(text, str)}
    if not found:
        raise DataError(
            f"{source.uri} has no JSON file of captions ({{key: caption}}), which this task needs. "
            "Put it beside the lists."
        )
    return found


def _picture(line: Line, split: Split, captions: dict[str, str]) -> Picture:
    person = LabelledPerson(line.identity, clothes_id=line.clothes_id, text=captions.get(line.instruction))
    return Picture(line.file, line.camera_id or "unknown", (person,), split)


def _question(number: int, line: Line, task: str, captions: dict[str, str], folder: str) -> Question:
    words = captions.get(line.instruction)
    if task in BY_CAPTION and words is None:
        raise DataError(f"query {number} has the instruction {line.instruction!r}, which is no key of the captions.")
    return Question(
        query_id=f"{number:06d}",
        identity=line.identity,
        task=TASKS[task],
        file=None if task == "t2i" else line.file,
        camera_id=line.camera_id,
        clothes_id=line.clothes_id,
        text=words if task == "t2i" else None,
        instruction=words if task == "attr" else None,
        instruction_file=folder + line.instruction if task in BY_PICTURE else None,
    )
