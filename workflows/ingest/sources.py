"""Which files an ingest reads, and what they are called: sources in, one `SourceFile` per video or image out.

A source is a video file, an image, a folder (searched at every depth) or a glob (`*`, `?`, `[...]` within a folder
name, `**` for any folders), local or on `s3://`. Nothing is opened here; files are only listed.

Names. A *video's* camera is the folder that holds it, where that folder was found below the source (a source folder
with subfolders, or a glob with a wildcard in its folder part); otherwise the camera is the video's own stem. An
*image's* camera is always the folder that holds it. A frame is called "<camera_id>/<stem>#<frame_index>"; two files
that would share a name get "~" and six hex digits of their URI behind the stem.
"""

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from modeling.errors import DataError
from workflows.storage import Folder, split_uri

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "wmv", "asf", "flv", "3gp", "mpg", "mpeg", "mpe", "vob"),
        *(
            "ts",
            "mts",
            "m2ts",
            "mxf",
            "ogv",
            "dav",
            "h264",
            "264",
            "h265",
            "265",
            "hevc",
            "mjpg",
            "mjpeg",
            "y4m",
            "gif",
        ),
    )
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm"})
STAT_THREADS = 16  # asking a file's size is latency only

logger = logging.getLogger(__name__)
Kind = Literal["video", "image"]


@dataclass(frozen=True)
class SourceFile:
    """One video or image to ingest."""

    uri: str
    kind: Kind
    camera_id: str
    stem: str
    """Of the file's name; with camera and frame index it names every frame."""
    source: str = ""
    """As the person gave it."""
    identity: str = ""
    """Changes when the content may have changed (`Folder.identity`)."""
    recorded_at: str | None = None
    """When its first frame was recorded, ISO 8601 in UTC; None where that is not known (yet)."""

    def frame_id(self, frame_index: int) -> str:
        return f"{self.camera_id}/{self.stem}#{frame_index}"


def list_sources(sources: Sequence[str], known: Mapping[str, SourceFile] | None = None) -> list[SourceFile]:
    """Every file of the sources, once each, in the order given and by name within a source.

    `known`: URI -> file of an earlier listing, whose names are kept, so that frames are called what they were.
    Raises DataError for a source that does not exist or holds neither video nor image.
    """
    found: dict[str, SourceFile] = {}
    for source in sources:
        for file in _files_of(source):
            found.setdefault(file.uri, replace(file, source=source))
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        identities = pool.map(lambda file: file.identity or _identity(file.uri), found.values())
        files = [replace(file, identity=identity) for file, identity in zip(found.values(), identities, strict=True)]
    return _with_distinct_names(files, known or {})


def _files_of(source: str) -> list[SourceFile]:
    folder, name = split_uri(source)
    if name and folder.exists(name):  # before globs: a file may be called "clip [1].mp4"
        return [_name_file(folder, name, kind=_kind_of(name) or "video", camera_id=None)]
    if _is_wild(source):
        return _files_of_glob(source)
    folder = Folder(source)
    names = _list_folder(folder)
    files = _name_files(folder, names, camera_from_folder=True)
    if not files:
        state = f"holds {len(names)} files, but no video and no image" if names else "does not exist or is empty"
        raise DataError(
            f"the source {source} {state}. Give videos, images, folders of them, globs, or s3://bucket/prefix; "
            f"in folders, files are taken by suffix ({', '.join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))})."
        )
    return files


def _files_of_glob(source: str) -> list[SourceFile]:
    parts = source.split("/")
    first_wild = next(number for number, part in enumerate(parts) if _is_wild(part))
    base = "/".join(parts[:first_wild]) or ("/" if source.startswith("/") else ".")
    folder, pattern = Folder(base), _glob_pattern(parts[first_wild:])
    names = {name: identity for name, identity in _list_folder(folder).items() if pattern.fullmatch(name)}
    files = _name_files(folder, names, camera_from_folder=first_wild < len(parts) - 1)
    if not files:
        raise DataError(f"the pattern {source} matches no video and no image. Check the path and the wildcards.")
    return files


def _list_folder(folder: Folder) -> dict[str, str]:
    """Name -> identity of every file; a local file's is "" and still to be asked for, a remote listing tells it."""
    return folder.list_identities() if folder.is_remote else dict.fromkeys(folder.list_files(), "")


def _name_files(folder: Folder, names: Mapping[str, str], *, camera_from_folder: bool) -> list[SourceFile]:
    """The videos and images among `names` (relative to `folder`, with identities), with their cameras."""
    visible = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    kinds = {name: kind for name in sorted(visible) if (kind := _kind_of(name)) is not None}
    ignored = Counter(PurePosixPath(name).suffix or "(none)" for name in names if name not in kinds)
    if kinds and ignored:
        logger.info("%s: ignored %d files by suffix: %s", folder.uri, ignored.total(), dict(ignored.most_common(5)))
    files = []
    for name, kind in kinds.items():
        parent = name.rpartition("/")[0]
        camera_id = PurePosixPath(parent).name if parent and camera_from_folder else None
        files.append(replace(_name_file(folder, name, kind=kind, camera_id=camera_id), identity=names[name]))
    return files


def _name_file(folder: Folder, name: str, *, kind: Kind, camera_id: str | None) -> SourceFile:
    uri = folder.path(name)
    stem = PurePosixPath(name).stem
    if kind == "image":
        camera_id = PurePosixPath(uri).parent.name or stem
    return SourceFile(uri, kind, camera_id or stem, stem)


def _kind_of(name: str) -> Kind | None:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def _with_distinct_names(files: Sequence[SourceFile], known: Mapping[str, SourceFile]) -> list[SourceFile]:
    """The files; new ones that would share camera and stem with others get a suffix from their URI behind the stem."""
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for file in known.values():
        groups[file.camera_id, file.stem].append(file.uri)
    for file in files:
        if file.uri not in known:
            groups[file.camera_id, file.stem].append(file.uri)
    for (camera_id, stem), uris in groups.items():
        if len(uris) > 1:
            logger.warning(
                "%d files share the name %s/%s (%s, ...): new ones get ~ and six digits of their URI behind the stem",
                len(uris), camera_id, stem, ", ".join(uris[:2]),
            )  # fmt: skip
    return [_named(file, known.get(file.uri), is_shared=len(groups[file.camera_id, file.stem]) > 1) for file in files]


def _named(file: SourceFile, known: SourceFile | None, *, is_shared: bool) -> SourceFile:
    if known is not None:
        return replace(file, camera_id=known.camera_id, stem=known.stem)
    if is_shared:
        return replace(file, stem=f"{file.stem}~{hashlib.sha256(file.uri.encode()).hexdigest()[:6]}")
    return file


def _identity(uri: str) -> str:
    folder, name = split_uri(uri)
    return folder.identity(name)


def _is_wild(text: str) -> bool:
    return any(character in text for character in "*?[")


def _glob_pattern(parts: Sequence[str]) -> re.Pattern[str]:
    """A pattern for names relative to the folder above the first wildcard; wildcards do not cross `/`, `**` does."""
    pieces = [
        (".*" if number == len(parts) - 1 else "(?:[^/]+/)*")
        if part == "**"
        else _part_pattern(part) + ("" if number == len(parts) - 1 else "/")
        for number, part in enumerate(parts)
    ]
    return re.compile("".join(pieces))


def _part_pattern(part: str) -> str:
    tokens = re.findall(r"\[!?\]?[^\]]*\]|.", part)
    special = {"*": "[^/]*", "?": "[^/]"}
    return "".join(
        special.get(token) or (token.replace("[!", "[^", 1) if len(token) > 1 else re.escape(token)) for token in tokens
    )
