"""Which files a source names, and what cameras and frames are called."""

from pathlib import Path

import pytest

from modeling.errors import DataError
from workflows.ingest.sources import list_sources


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for name in (
        "north/monday.mp4",
        "north/tuesday.mp4",
        "south/monday.MKV",
        "single.avi",
        "notes.txt",
        ".hidden/x.mp4",
        "door/1.jpg",
        "door/2.png",
        "deep/er/clip [1].mp4",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(*sources: str) -> list[tuple[str, str, str]]:
    return sorted((file.camera_id, file.stem, file.kind) for file in list_sources(sources))


def test_a_folder_gives_everything_below_it(archive):
    assert names(str(archive)) == [
        ("door", "1", "image"),
        ("door", "2", "image"),
        ("er", "clip [1]", "video"),
        ("north", "monday", "video"),
        ("north", "tuesday", "video"),
        ("single", "single", "video"),
        ("south", "monday", "video"),
    ]


def test_a_videos_camera_is_its_stem_unless_its_folder_was_found(archive):
    assert names(f"{archive}/north/monday.mp4") == [("monday", "monday", "video")]
    assert names(f"{archive}/north") == [("monday", "monday", "video"), ("tuesday", "tuesday", "video")]
    assert names(f"{archive}/north/*.mp4") == [("monday", "monday", "video"), ("tuesday", "tuesday", "video")]
    assert names(f"{archive}/*/monday.*") == [("north", "monday", "video"), ("south", "monday", "video")]


def test_an_images_camera_is_always_its_folder(archive):
    assert names(f"{archive}/door/1.jpg") == [("door", "1", "image")]
    assert names(f"{archive}/door") == [("door", "1", "image"), ("door", "2", "image")]


def test_wildcards_do_not_cross_folders_unless_doubled(archive):
    assert names(f"{archive}/*.avi") == [("single", "single", "video")]
    assert len(names(f"{archive}/**/*.mp4")) == 3
    assert names(f"{archive}/[ns]o?th/t*.mp4") == [("north", "tuesday", "video")]


def test_a_name_with_brackets_is_found_as_it_is(archive):
    assert names(f"{archive}/deep/er/clip [1].mp4") == [("clip [1]", "clip [1]", "video")]


def test_a_file_named_twice_is_read_once(archive):
    assert len(list_sources([f"{archive}/north", f"{archive}/north/monday.mp4", f"{archive}/*/monday.mp4"])) == 2


def test_files_that_would_share_a_name_are_told_apart(archive):
    (archive / "copy" / "north").mkdir(parents=True)
    (archive / "copy" / "north" / "monday.mp4").write_bytes(b"y")
    stems = {stem for camera, stem, _ in names(str(archive)) if camera == "north" and "monday" in stem}
    assert len(stems) == 2
    assert all(stem.startswith("monday~") and len(stem) == len("monday~") + 6 for stem in stems)
    assert stems == {stem for camera, stem, _ in names(str(archive)) if camera == "north" and "monday" in stem}


def test_identity_changes_with_the_file(archive):
    before = {file.uri: file.identity for file in list_sources([str(archive)])}
    (archive / "north" / "monday.mp4").write_bytes(b"another length")
    after = {file.uri: file.identity for file in list_sources([str(archive)])}
    assert [uri for uri in before if before[uri] != after[uri]] == [f"{archive}/north/monday.mp4"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere", "does not exist or is empty"),
        ("*.mov", "matches no video and no image"),
        ("notes", "no video and no image"),
    ],
)
def test_a_source_without_footage_is_an_error(archive, source, words):
    (archive / "notes").mkdir()
    (archive / "notes" / "readme.txt").write_text("x")
    with pytest.raises(DataError, match=words):
        list_sources([f"{archive}/{source}"])


def test_an_explicit_file_of_any_name_is_taken_as_a_video(archive):
    assert names(f"{archive}/notes.txt") == [("notes", "notes", "video")]
