"""Folders on local disk or S3, with one contract for both: writes are atomic, remote calls survive an outage.

A `Folder` holds nothing but its URI, so it pickles and costs nothing to make. Credentials come from the environment
only (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_PROFILE`, ...; `AWS_ENDPOINT_URL` for a
server that is not Amazon's). It knows nothing of steps, shards or tables beyond Parquet in, Parquet out.

Errors: a missing file is a `DataError` that names it; refused credentials, a missing bucket and a server that stays
away are a `StorageError`.
"""

import datetime
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from modeling.errors import ConfigError, DataError, StorageError
from workflows.remote import RETRY_FOR_S, RangeReader, call_remote, s3_filesystem

LEAST_UNCACHED_BYTES = 1 << 20  # of a written file that leaves the page cache
READ_BLOCK_BYTES = 4 << 20  # of a remote file opened for streaming reads, such as a video
JSON = Any  # what json.dumps takes


class Folder:
    """A folder on local disk or on S3; names of files in it are relative and use `/`."""

    def __init__(self, uri: str, *, retry_for_s: float = RETRY_FOR_S) -> None:
        """`uri` is a local path (relative and `~` are resolved) or `s3://bucket/prefix`."""
        self.uri = _absolute_uri(uri)
        self.retry_for_s = retry_for_s

    @property
    def is_remote(self) -> bool:
        return self.uri.startswith("s3://")

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def child(self, *parts: str) -> "Folder":
        return Folder("/".join([self.uri.rstrip("/"), *parts]), retry_for_s=self.retry_for_s)

    def path(self, name: str) -> str:
        """The full URI of a file below this folder."""
        return f"{self.uri.rstrip('/')}/{name}" if name else self.uri

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name (not a folder)."""
        if not self.is_remote:
            return Path(self.path(name)).is_file()
        return self._info(name) is not None

    def has_files(self) -> bool:
        """Whether the folder exists and holds at least one file, at any depth."""
        return bool(self.list_files())

    def list_files(self, prefix: str = "") -> list[str]:
        """Every file whose relative name starts with `prefix`, at any depth, sorted. No such folder: no files."""
        if self.is_remote:
            return self._list_remote(prefix)
        start = Path(self.path(prefix)) if prefix.endswith("/") or not prefix else Path(self.path(prefix)).parent
        found = []
        for folder, _, files in os.walk(start):
            relative = os.path.relpath(folder, self.uri)
            found += [name if relative == "." else f"{relative}/{name}" for name in files if not _is_temporary(name)]
        return sorted(name for name in found if name.startswith(prefix))

    def read_bytes(self, name: str) -> bytes:
        if self.is_remote:
            return cast(bytes, self._remote("read", name, lambda fs, key: fs.cat_file(key)))
        try:
            return Path(self.path(name)).read_bytes()
        except OSError as error:
            raise _local_error("read", self.path(name), error) from error

    def write_bytes(self, name: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """Writes the whole file or nothing. `durable=False` skips fsync: it survives a kill, not a power cut."""
        if self.is_remote:
            self._remote("write", name, lambda fs, key: fs.pipe_file(key, bytes(data)))
            return
        with self._local_file(name, durable=durable) as temporary:
            temporary.write_bytes(data)

    def create_bytes(self, name: str, data: bytes) -> bool:
        """Writes the file if there is none of that name, and says whether it did.

        Exact on local disk; on S3 it checks, then writes, so two callers in the same instant can both succeed.
        """
        if self.is_remote:
            if self.exists(name):
                return False
            self.write_bytes(name, data)
            return True
        path = Path(self.path(name))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        except OSError as error:
            raise _local_error("write", self.path(name), error) from error
        return True

    def open_input(self, name: str) -> BinaryIO:
        """A seekable file for reading; remote reads are ranges, each retried, so an outage does not break it."""
        if self.is_remote:
            return cast(BinaryIO, io.BufferedReader(self._range_reader(name, block_bytes=READ_BLOCK_BYTES)))
        try:
            return Path(self.path(name)).open("rb")
        except OSError as error:
            raise _local_error("read", self.path(name), error) from error

    def remove(self, name: str) -> None:
        """Removes a file; one that is missing is fine."""
        try:
            if self.is_remote:
                self._remote("remove", name, lambda fs, key: fs.rm_file(key))
            else:
                Path(self.path(name)).unlink(missing_ok=True)
        except DataError:
            pass
        except OSError as error:
            raise _local_error("remove", self.path(name), error) from error

    def remove_folder(self, name: str) -> None:
        """Removes a folder below this one with everything in it; one that is missing is fine."""
        if not self.is_remote:
            shutil.rmtree(self.path(name), ignore_errors=True)
            return
        for file in self.list_files(f"{name}/"):
            self.remove(file)

    def read_json(self, name: str) -> JSON:
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise DataError(f"{self.path(name)} is not valid JSON ({error}). Make it again, or remove it.") from error

    def write_json(self, name: str, value: JSON, *, durable: bool = True) -> None:
        text = json.dumps(value, ensure_ascii=False, indent=1)
        self.write_bytes(name, text.encode(), durable=durable)

    def read_table(self, name: str, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
        """A Parquet file as a table. `filters` is a pyarrow.compute expression; row groups it excludes are not read."""
        try:
            source: Any = self._range_reader(name) if self.is_remote else self.path(name)
            if not self.is_remote and not Path(source).is_file():
                raise DataError(f"there is no file {source}. Check the path, or run the step that makes it.")
            chosen = list(columns) if columns is not None else None
            return pq.read_table(source, columns=chosen, filters=filters, partitioning=None)
        except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowTypeError) as error:
            raise DataError(f"{self.path(name)} cannot be read as a Parquet table: {error}") from error

    def read_schema(self, name: str) -> pa.Schema:
        """The schema of a Parquet file, with its metadata; reads the footer only."""
        try:
            source: Any = self._range_reader(name) if self.is_remote else self.path(name)
            return pq.read_schema(source)
        except FileNotFoundError as error:
            raise _local_error("read", self.path(name), error) from error
        except pa.ArrowInvalid as error:
            raise DataError(f"{self.path(name)} cannot be read as a Parquet table: {error}") from error

    def write_table(self, name: str, table: pa.Table, *, row_group_rows: int | None = None) -> None:
        """Writes Parquet (zstd), whole or not at all. `row_group_rows`: rows a reader has to fetch for one.

        Pictures are compressed already: packing them again, or looking for repeats, costs three times the write.
        """
        plain = [field.name for field in table.schema if not pa.types.is_binary(field.type)]
        settings: dict[str, Any] = {"compression": "zstd", "row_group_size": row_group_rows}
        if len(plain) < table.num_columns:
            strings = [field.name for field in table.schema if pa.types.is_string(field.type)]
            settings |= {
                "compression": dict.fromkeys(plain, "zstd"),
                "use_dictionary": strings,
                "write_statistics": plain,
            }
        if self.is_remote:
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, **settings)
            self.write_bytes(name, memoryview(sink.getvalue()))
            return
        with self._local_file(name) as temporary, pa.OSFile(str(temporary), "wb") as file:
            pq.write_table(table, file, **settings)

    @contextmanager
    def _local_file(self, name: str, *, durable: bool = True) -> Iterator[Path]:
        """A path to write to; what is there at the end becomes the file, whole or not at all."""
        path = Path(self.path(name))
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if durable:
                _sync_file(temporary)
            temporary.replace(path)
            if durable:
                _sync_folder(path.parent)
        except OSError as error:
            raise _local_error("write", self.path(name), error) from error
        finally:
            with suppress(OSError):  # not there any more, or could never be
                temporary.unlink()

    def size_bytes(self, name: str) -> int:
        return self._stat(name)[0]

    def identity(self, name: str) -> str:
        """A short text that changes when the content may have changed: size and ETag, or size and time of change."""
        size, version = self._stat(name)
        return f"{size}-{version}"

    def list_identities(self) -> dict[str, str]:
        """The identity of every file of a remote folder, at any depth, from the listing alone; sorted by name."""
        listing = self._listing("")
        return {name: f"{int(listing[name]['size'])}-{_version(listing[name])}" for name in sorted(listing)}

    def modified_at(self, name: str) -> datetime.datetime | None:
        """When a file was written last, in UTC; None where there is no such file."""
        if self.is_remote:
            info = self._info(name)
            return info["LastModified"].astimezone(datetime.UTC) if info is not None else None
        try:
            return datetime.datetime.fromtimestamp(Path(self.path(name)).stat().st_mtime, datetime.UTC)
        except OSError:
            return None

    def _stat(self, name: str) -> tuple[int, str]:
        if not self.is_remote:
            try:
                found = Path(self.path(name)).stat()
            except OSError as error:
                raise _local_error("read", self.path(name), error) from error
            return found.st_size, str(found.st_mtime_ns)
        info = self._info(name)
        if info is None:
            raise _missing(self.path(name))
        return int(info["size"]), _version(info)

    def _range_reader(self, name: str, block_bytes: int | None = None) -> RangeReader:
        size, _ = self._stat(name)
        return RangeReader(
            size=size,
            block_bytes=block_bytes,
            fetch=lambda start, end: cast(
                bytes, self._remote("read", name, lambda fs, key: fs.cat_file(key, start=start, end=end))
            ),
        )

    def _info(self, name: str) -> Mapping[str, Any] | None:
        try:
            info = self._remote("look up", name, lambda fs, key: fs.info(key, refresh=True))
        except DataError:
            return None
        return cast(Mapping[str, Any], info) if info["type"] == "file" else None

    def _list_remote(self, prefix: str) -> list[str]:
        return sorted(self._listing(prefix))

    def _listing(self, prefix: str) -> dict[str, Mapping[str, Any]]:
        """What a remote listing tells of every file whose relative name starts with `prefix`."""
        folder_name = prefix.rpartition("/")[0]
        try:
            found = self._remote("list", folder_name, lambda fs, key: fs.find(key, detail=True))
        except DataError:
            return {}
        base = self.uri.removeprefix("s3://").rstrip("/") + "/"
        return {key.removeprefix(base): info for key, info in found.items() if key.startswith(base + prefix)}

    def _remote(self, verb: str, name: str, call: Any) -> Any:
        """`call(filesystem, key)` with retries; a missing key becomes a DataError when reading."""
        uri = self.path(name)
        key = uri.removeprefix("s3://").rstrip("/")
        try:
            return call_remote(lambda: call(s3_filesystem(), key), what=f"{verb} {uri}", retry_for_s=self.retry_for_s)
        except FileNotFoundError as error:
            if verb == "write":
                bucket = key.partition("/")[0]
                raise StorageError(
                    f"cannot write {uri}: there is no bucket {bucket!r}. Create it, or correct the path."
                ) from error
            raise _missing(uri) from error


def split_uri(uri: str) -> tuple[Folder, str]:
    """The folder and the name of a file."""
    folder, _, name = _absolute_uri(uri).rpartition("/")
    return Folder(folder or "/"), name


def _absolute_uri(uri: str) -> str:
    if not uri:
        raise ConfigError("a path is empty. Give a local path or s3://bucket/prefix.")
    if uri.startswith("s3://"):
        bucket, *parts = [part for part in uri.removeprefix("s3://").split("/") if part]
        if "@" in bucket or ":" in bucket:
            raise ConfigError(
                "an s3:// path must not hold credentials or a host. Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                "AWS_ENDPOINT_URL in the environment, and give s3://bucket/prefix."
            )
        return "s3://" + "/".join([bucket, *parts])
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise ConfigError(
            f"{uri}: paths of kind {scheme}:// are not supported. Give a local path or s3://bucket/prefix."
        )
    return os.path.abspath(os.path.expanduser(rest if separator else uri))  # noqa: PTH100, PTH111 (keeps symlinks)


def _version(info: Mapping[str, Any]) -> str:
    """What a server gives to tell one content of a file from another."""
    return str(info.get("ETag") or info.get("LastModified")).strip('"')


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _sync_file(path: Path) -> None:
    """Makes a file's bytes survive a power cut. A large one leaves the page cache, whose pages the next one takes."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
        if os.fstat(descriptor).st_size >= LEAST_UNCACHED_BYTES and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _missing(uri: str) -> DataError:
    return DataError(f"there is no file {uri}. Check the path, or run the step that makes it.")


def _local_error(verb: str, path: str, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError | IsADirectoryError) and verb == "read":
        return _missing(path)
    return StorageError(f"cannot {verb} {path}: {error.strerror or error}. Check permissions and free space.")
