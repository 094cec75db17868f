"""What travels with a job, and what stays."""

import json
import zipfile
from pathlib import Path

import pytest

import modeling
from modeling.errors import ConfigError
from ray_jobs.submission import package
from ray_jobs.submission.package import build_package, collect_files
from ray_jobs.submission.versions import differences, installed_versions


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in (
        "detector.py", "configs/search.yaml", "suspect.jpg", "footage/gate.mp4", "notes.txt", "weights.safetensors",
        ".venv/lib/site.py", "env/pyvenv.cfg", "env/a.py", "clone/.git/config", "clone/b.py", "build/c.py",
        "modeling/errors.py",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_modules_configs_and_named_files_travel_data_stays(project: Path) -> None:
    files = collect_files(project, [Path("suspect.jpg")])
    code = [name for name in files if name.split("/")[0] in package.CODE]
    assert set(files) - set(code) == {"detector.py", "configs/search.yaml", "suspect.jpg"}
    assert any(name.startswith("modeling/weights/tiny/") for name in code)
    assert not any("__pycache__" in name for name in code)


def test_the_code_that_runs_here_is_the_code_that_travels(project: Path) -> None:
    files = collect_files(project, [])
    assert files["modeling/errors.py"] == Path(modeling.__file__).parent / "errors.py"


def test_the_same_files_make_the_same_archive(project: Path, tmp_path: Path) -> None:
    first = build_package(project, [], tmp_path / "a.zip")
    (project / "detector.py").touch()
    (project / "notes.txt").write_text("other")
    second = build_package(project, [], tmp_path / "b.zip")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.size_bytes < package.MOST_BYTES


def test_the_archive_tells_what_it_was_made_with(project: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build_package(project, [], tmp_path / "a.zip").path) as archive:
        record = json.loads(archive.read("psreid-job.json"))
    assert record["versions"] == installed_versions()


def test_too_large_a_package_names_what_is_large(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MOST_BYTES", 1 << 20)
    with pytest.raises(
        ConfigError, match=r"at most 1\.0 MiB are allowed; the largest files are modeling/weights/tiny/"
    ):
        collect_files(project, [])


def test_too_large_a_named_file_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MOST_BYTES_OF_NAMED_FILE", 5)
    with pytest.raises(ConfigError, match=r"suspect\.jpg has 0\.0 MiB, more than"):
        collect_files(project, [Path("suspect.jpg")])


def test_a_folder_with_too_many_modules_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MOST_FILES", 1)
    with pytest.raises(ConfigError, match="more than 1 modules"):
        collect_files(project, [])


def test_equal_versions_are_no_difference() -> None:
    assert differences(installed_versions(), ["numpy>=2"], where="there") == []


def test_differences_name_package_both_versions_and_place() -> None:
    wanted = installed_versions() | {"torch": "1.0.0", "python": "2.7.18"}
    found = differences(wanted, ["nowhere>=1", "numpy>=99", "torch<1"], where="on node 10.0.0.3")
    here = installed_versions()
    assert f"torch is {here['torch']} on node 10.0.0.3 and 1.0.0 where the job was submitted" in found
    assert f"python is {here['python']} on node 10.0.0.3 and 2.7.18 where the job was submitted" in found
    assert "nowhere is missing on node 10.0.0.3 (nowhere>=1 is needed)" in found
    assert any(text.startswith("numpy is ") and ">=99" in text for text in found)
    assert len(found) == 4, "torch is compared once"


def test_build_tags_and_patch_versions_of_python_do_not_count() -> None:
    here = installed_versions()
    near = here | {
        "torch": here["torch"].partition("+")[0] + "+cpu",
        "python": here["python"].rpartition(".")[0] + ".99",
    }
    assert differences(near, [], where="there") == []
