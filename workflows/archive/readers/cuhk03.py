"""CUHK03, new protocol (767 / 700 identities): pictures of one kind and the protocol's MATLAB file.

`images_detected` or `images_labeled` hold `1_001_1_01.png` (camera pair, person, view, number), as common tools unpack
them from `cuhk-03.mat`; `cuhk03_new_protocol_config_<kind>.mat` numbers the pictures from 1. The view is the camera.
"""

from typing import Any

from modeling.errors import DataError
from workflows.archive.readers.dataset import Dataset, LabelledPerson, Picture, Question, Setting, shared_gallery
from workflows.archive.readers.source import Source

PUBLISHED = {
    "detected": {"train pictures": 7_365, "queries": 1_400, "gallery pictures": 5_332},
    "labeled": {"train pictures": 7_368, "queries": 1_400, "gallery pictures": 5_328},
}
IDENTITIES = {"train identities": 767, "query identities": 700}
RAW = ("cuhk03_release/cuhk-03.mat", "cuhk-03.mat")


class Cuhk03:
    title = "CUHK03"
    needs = ()
    variants = ("detected", "labeled")

    def read(self, source: Source, variant: str | None) -> Dataset:
        kind = variant or self.variants[0]
        config, folder = f"cuhk03_new_protocol_config_{kind}.mat", f"images_{kind}/"
        if not source.has(folder) and any(source.has(raw) for raw in RAW):
            raise DataError(
                f"{source.uri} holds cuhk-03.mat, whose pictures are still packed (MATLAB 7.3). Unpack them to "
                f"{folder} with names such as 1_001_1_01.png, as torchreid and fast-reid do, and put {config} beside."
            )
        source.require((config, folder), title=self.title)
        files = [folder + str(name.item()) for name in source.mat(config, "filelist").flatten()]
        identities = [str(int(label)) for label in source.mat(config, "labels").flatten()]

        def chosen(key: str) -> list[tuple[str, str, str]]:
            return [_row(source, config, files, identities, int(n)) for n in source.mat(config, key).flatten()]

        train = [Picture(file, camera, (LabelledPerson(who),), "train") for file, who, camera in chosen("train_idx")]
        gallery = [Picture(file, camera, (LabelledPerson(who),)) for file, who, camera in chosen("gallery_idx")]
        questions = [
            Question(file.rpartition("/")[2].rpartition(".")[0], who, "Trad", file=file, camera_id=camera)
            for file, who, camera in chosen("query_idx")
        ]
        used: list[Any] = [*train, *gallery, *questions]
        source.require_files([one.file for one in used], listed_in=config)
        return Dataset(
            pictures=train + gallery,
            questions=questions,
            galleries={"all": shared_gallery(gallery)},
            settings=[Setting("new protocol", ("all",), ("same camera",))],
            published=PUBLISHED[kind] | IDENTITIES,
        )


def _row(source: Source, config: str, files: list[str], identities: list[str], number: int) -> tuple[str, str, str]:
    """(file, identity, camera) of the picture that the protocol calls `number`, from 1."""
    if not 1 <= number <= len(files):
        raise DataError(f"{source.folder.path(config)} names picture {number}; it lists 1 to {len(files)}.")
    parts = files[number - 1].rpartition("/")[2].split("_")
    if len(parts) < 4:
        raise DataError(
            f"{source.folder.path(config)} lists {files[number - 1]!r}, which is not like 1_001_1_01.png. "
            "Take the file of the new protocol."
        )
    return files[number - 1], identities[number - 1], f"c{parts[2]}"
