"""The folder of a data set: listed once, its annotation files read whole, the usual mistakes explained."""

import io
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from modeling.errors import DataError
from workflows.ingest.sources import IMAGE_SUFFIXES
from workflows.storage import Folder

DEEPEST_SEARCH = 4  # levels below the source where the right folder is looked for
HIGHEST_SEARCH = 2  # levels above it


class Source:
    """The folder that a person gave; names are relative to it."""

    def __init__(self, uri: str) -> None:
        self.folder = Folder(uri)

    @property
    def uri(self) -> str:
        return self.folder.uri

    @cached_property
    def names(self) -> list[str]:
        """Every file, sorted; what is hidden or left by archivers is not among them."""
        found = [
            name
            for name in self.folder.list_files()
            if not any(p.startswith((".", "__MACOSX")) for p in name.split("/"))
        ]
        if not found:
            raise DataError(f"{self.uri} does not exist or is empty. Give the folder of the data set.")
        return found

    @cached_property
    def _name_set(self) -> frozenset[str]:
        return frozenset(self.names)

    def has(self, name: str) -> bool:
        """Whether there is that file; or, for a name ending in `/`, a file below that folder."""
        return any(True for _ in self.below(name)) if name.endswith("/") else name in self._name_set

    def below(self, folder: str) -> Iterator[str]:
        """Files below a folder, at any depth."""
        return (name for name in self.names if name.startswith(folder))

    def images(self, folder: str, *, deep: bool = False) -> list[str]:
        """Image files of a folder (`deep`: of the folders in it as well). DataError if there are none."""
        found = [
            name
            for name in self.below(folder)
            if posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES and (deep or "/" not in name[len(folder) :])
        ]
        if not found:
            raise DataError(f"{self.folder.path(folder)} holds no image. Unpack the data set completely.")
        return found

    def require(self, names: Sequence[str], *, title: str) -> None:
        """DataError if something is missing; it names the right folder where one lies above or below."""
        missing = [name for name in names if not self.has(name)]
        if not missing:
            return
        better = self._folder_with(names)
        advice = f"{better} has all of it: give that folder." if better else "Unpack the data set completely."
        raise DataError(f"{self.uri} is not {title}: there is no {', '.join(missing)} in it. {advice}")

    def text_lines(self, name: str) -> list[tuple[int, str]]:
        """(number from 1, text) of the lines that are not blank."""
        text = self.folder.read_bytes(name).decode("utf-8-sig", "replace")
        return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.folder.read_bytes(name).decode("utf-8-sig"))
        except ValueError as error:
            raise DataError(f"{self.folder.path(name)} is not valid JSON ({error}). Download it again.") from error

    def mat(self, name: str, key: str) -> Any:
        """A variable of a MATLAB file up to version 7.2."""
        from scipy.io import loadmat

        path = self.folder.path(name)
        try:
            content = loadmat(io.BytesIO(self.folder.read_bytes(name)))
        except NotImplementedError as error:
            raise DataError(f"{path} is of MATLAB version 7.3 (HDF5), which is not read here.") from error
        except (ValueError, TypeError, OSError) as error:
            raise DataError(f"{path} is not a MATLAB file ({error}). Download it again.") from error
        if key not in content:
            held = ", ".join(found for found in content if not found.startswith("__"))
            raise DataError(f"{path} has no variable {key}; it holds {held or 'nothing'}. It is another file.")
        return content[key]

    def prefix_of(self, name: str) -> str | None:
        """The folder (with `/`, or empty) below which an annotated file name is found; None if it is nowhere."""
        if name in self._name_set:
            return ""
        tail = f"/{name}"
        return next((found[: -len(name)] for found in self.names if found.endswith(tail)), None)

    def require_files(self, names: Sequence[str], *, listed_in: str) -> None:
        """DataError if annotated files are missing: how many, and the first."""
        missing = [name for name in names if name not in self._name_set]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(names)} pictures listed in {self.folder.path(listed_in)} are missing, the "
                f"first is {self.folder.path(missing[0])}. Unpack the data set completely, or correct the list."
            )

    def bad_line(self, name: str, number: int, line: str, expected: str) -> DataError:
        return DataError(f"{self.folder.path(name)}, line {number}: {line[:80]!r} is not {expected}. Correct it.")

    def _folder_with(self, names: Sequence[str]) -> str | None:
        """A folder a few levels below or above this one that holds all these names."""
        levels = {name.split("/")[0] for name in self.names if "/" in name}
        for depth in range(1, DEEPEST_SEARCH + 1):
            for level in sorted(levels):
                if all(self.has(f"{level}/{name}") for name in names):
                    return self.folder.path(level)
            levels = {"/".join(n.split("/")[: depth + 1]) for n in self.names if n.count("/") > depth}
        above = self.folder.uri
        for _ in range(HIGHEST_SEARCH):
            above = above.rpartition("/")[0]
            if not above.strip("/") or above == "s3:/":
                return None
            folder = Folder(above)
            if all(folder.list_files(name) if name.endswith("/") else folder.exists(name) for name in names):
                return above
        return None


def match_name(pattern: re.Pattern[str], source: Source, name: str, expected: str) -> re.Match[str]:
    """The match of a file's own name. DataError says what such a name looks like."""
    found = pattern.search(name.rpartition("/")[2])
    if found is None:
        raise DataError(
            f"{source.folder.path(name)} is not named like {expected}, which tells identity and camera. "
            "Remove the file, or restore its name."
        )
    return found
