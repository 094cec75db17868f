"""What travels with a job: psreid's code with its shipped weights, modules and configs of the working directory, and
the small files that the command names. Footage, tables and other weights stay where they are.

The archive is the same, byte for byte, for the same files, so that a cluster that has it is not sent it again.
"""

import importlib.util
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modeling.errors import ConfigError
from ray_jobs.submission.driver import JOB_FILE
from ray_jobs.submission.versions import declared_requirements, installed_versions

CODE = ("modeling", "workflows", "ray_jobs")
CARRIED_SUFFIXES = (".py", ".yaml", ".yml", ".toml")
SKIPPED_FOLDERS = ("__pycache__", "build", "dist", "node_modules", "site-packages")
MOST_BYTES = 64 << 20
MOST_BYTES_OF_NAMED_FILE = 16 << 20
MOST_FILES = 5000
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows


@dataclass(frozen=True)
class Package:
    """A zip file ready to be sent."""

    path: Path
    num_files: int
    size_bytes: int


def build_package(working_dir: Path, named_files: Sequence[Path], target: Path) -> Package:
    """Writes the archive to `target`. `named_files` are relative to `working_dir`.

    ConfigError if a named file, or everything together, is larger than a job should carry.
    """
    files = collect_files(working_dir, named_files)
    record = json.dumps({"versions": installed_versions(), "requirements": declared_requirements()}, sort_keys=True)
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            _add(archive, name, files[name].read_bytes())
        _add(archive, JOB_FILE, record.encode())
    return Package(target, len(files) + 1, target.stat().st_size)


def collect_files(working_dir: Path, named_files: Sequence[Path]) -> Mapping[str, Path]:
    """Name in the archive -> file; psreid's own code is the code that runs here."""
    files: dict[str, Path] = {}
    for path in _carried_below(working_dir):
        files[path.relative_to(working_dir).as_posix()] = path
        if len(files) > MOST_FILES:
            raise ConfigError(
                f"more than {MOST_FILES} modules and configs lie below {working_dir}. Run psreid from the folder of "
                "your project, or name one with --working-dir."
            )
    for package in CODE:
        root = _root_of(package)
        files = {name: path for name, path in files.items() if not name.startswith(f"{package}/")}
        files |= {f"{package}/{path.relative_to(root).as_posix()}": path for path in _all_below(root)}
    for name in named_files:
        size = (working_dir / name).stat().st_size
        if size > MOST_BYTES_OF_NAMED_FILE:
            raise ConfigError(
                f"{name} has {_mib(size)}, more than the {_mib(MOST_BYTES_OF_NAMED_FILE)} that a file may have to "
                "travel with a job. Put it on s3:// or on a disk that every node mounts, and name it there."
            )
        files[name.as_posix()] = working_dir / name
    _check_total(files)
    return files


def _check_total(files: Mapping[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        listed = ", ".join(f"{name} ({_mib(sizes[name])})" for name in largest)
        raise ConfigError(
            f"the job would carry {_mib(total)}, at most {_mib(MOST_BYTES)} are allowed; the largest files are "
            f"{listed}. Move what is not code out of the working directory, or name another with --working-dir."
        )


def _carried_below(folder: Path) -> Iterator[Path]:
    """Modules and configs, without hidden folders, build outputs, virtual environments and other repositories."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_skipped(Path(place) / name))
        for name in sorted(names):
            if name.endswith(CARRIED_SUFFIXES) and not name.startswith("."):
                yield Path(place) / name


def _is_skipped(folder: Path) -> bool:
    name = folder.name
    is_other_project = (folder / ".git").exists() or (folder / "pyvenv.cfg").exists()
    return name.startswith(".") or name in SKIPPED_FOLDERS or is_other_project


def _all_below(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield path


def _root_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations, f"{package} is part of psreid"
    return Path(next(iter(spec.submodule_search_locations)))


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, NO_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
