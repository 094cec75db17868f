"""Calls to an S3 server that may be away for a while: one shared client, retries with backoff, plain errors.

Knows nothing of folders or tables. Secrets never reach a message: errors carry the operation and the path only, and
the reason is the server's error code or the class of the failure.
"""

import errno
import io
import logging
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from modeling.errors import StorageError

RETRY_FOR_S = 75.0  # how long a server may be away before a call gives up
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 3.0
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
BLOCKS_KEPT = 4  # of a file that is read in blocks
RETRYABLE_ERRNO = {errno.EIO, errno.EREMOTEIO, errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNREFUSED}

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def s3_filesystem() -> Any:
    """The process's S3 client, configured from the environment alone. s3fs keeps one per process and setting."""
    import s3fs

    endpoint = _endpoint_url()
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"total_max_attempts": 1},  # retries are made here, where they are counted in seconds
    }
    if endpoint:  # servers other than Amazon's: bucket in the path, and no checksums that they may not know
        settings |= {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    return s3fs.S3FileSystem(
        endpoint_url=endpoint,
        use_listings_cache=False,  # a ledger must see what others wrote
        config_kwargs=settings,
    )


def call_remote(call: Callable[[], Result], *, what: str, retry_for_s: float = RETRY_FOR_S) -> Result:
    """The result of `call`, retried while the server is unreachable or overloaded, for `retry_for_s` seconds.

    FileNotFoundError passes through. Refused credentials raise StorageError at once.
    """
    give_up_at = time.monotonic() + retry_for_s
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return call()
        except FileNotFoundError:
            raise
        except Exception as error:
            reason = describe_failure(error)
            if not is_retryable(error):
                raise StorageError(f"cannot {what}: {reason}. {_advice(error)}") from None
            if time.monotonic() + wait_s > give_up_at:
                raise StorageError(
                    f"cannot {what}: {reason}, for {retry_for_s:.0f} s. Check that the server {_endpoint()} is up "
                    "and reachable (AWS_ENDPOINT_URL), then run the same command again."
                ) from None
            if wait_s == FIRST_WAIT_S:
                logger.warning("cannot %s now (%s); trying for up to %.0f s", what, reason, retry_for_s)
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)


def is_retryable(error: BaseException) -> bool:
    """Whether the same call may succeed later: connection trouble, timeouts, and the server's own 5xx."""
    import aiohttp
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    if isinstance(error, PermissionError | boto.NoCredentialsError | boto.PartialCredentialsError):
        return False
    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return bool(status >= 500 or status == 429)
    if isinstance(error, ConnectionError | TimeoutError | aiohttp.ClientError):
        return True
    unreachable = boto.ConnectionError | boto.HTTPClientError  # both are botocore's own, not built in
    if isinstance(error, unreachable | boto.ResponseStreamingError | boto.IncompleteReadError | ResponseParserError):
        return True
    cause = error.__cause__
    if cause is not None and cause is not error and is_retryable(cause):
        return True
    return isinstance(error, OSError) and error.errno in RETRYABLE_ERRNO


def describe_failure(error: BaseException) -> str:
    """A short reason without request details, so that no header, signature or key can leak."""
    from botocore import exceptions as boto

    source = error if isinstance(error, boto.ClientError) else error.__cause__
    if isinstance(source, boto.ClientError):
        return f"the server answered {source.response.get('Error', {}).get('Code', 'an error')}"
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return "there are no credentials in the environment"
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__


class RangeReader(io.RawIOBase):
    """A remote file read by ranges; it holds no connection between reads."""

    def __init__(self, *, size: int, fetch: Callable[[int, int], bytes], block_bytes: int | None = None) -> None:
        """`fetch(start, end)` gives the bytes of [start, end).

        With `block_bytes` the file is fetched in whole blocks of which the latest few are kept, for readers that jump
        back and forth, as video demuxers do. Without, exactly the bytes asked for are fetched.
        """
        self._size, self._fetch, self._position = size, fetch, 0
        self._block_bytes = block_bytes
        self._block = lru_cache(BLOCKS_KEPT)(self._fetch_block)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self._size)
        if end <= self._position:
            return 0
        data = self._read_range(self._position, end)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read_range(self, start: int, end: int) -> bytes:
        """The bytes of [start, end), or fewer where a block ends: callers of a raw reader ask again."""
        if self._block_bytes is None:
            return self._fetch(start, end)
        number, offset = divmod(start, self._block_bytes)
        return self._block(number)[offset : offset + end - start]

    def _fetch_block(self, number: int) -> bytes:
        assert self._block_bytes is not None
        start = number * self._block_bytes
        return self._fetch(start, min(start + self._block_bytes, self._size))


def _endpoint_url() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _endpoint() -> str:
    return _endpoint_url() or "of Amazon S3"


def _advice(error: BaseException) -> str:
    from botocore import exceptions as boto

    denied = isinstance(error, PermissionError | boto.NoCredentialsError | boto.PartialCredentialsError)
    if denied:
        return (
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or another source that the AWS libraries read) "
            f"to credentials that the server {_endpoint()} accepts for this bucket."
        )
    return f"Check the path and the server {_endpoint()}."
