"""One driver per output folder: a lock that a dead driver never leaves behind.

`lock.json` names its owner and carries a heartbeat number. A second driver on the same machine looks at the owner's
process; on another machine it watches the heartbeat, and takes the lock over once the number has stood still for
longer than an owner would let it. No clocks are compared.

On local disk taking the lock is exact. On S3 two drivers that start in the same instant may both get it; then they do
the same work twice, and the ledger makes that harmless (equal parts, whole files, markers last).
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from modeling.errors import ConfigError, PsreidError
from workflows.storage import Folder

LOCK = "lock.json"
HEARTBEAT_S = 10.0
STANDSTILL_S = 45.0  # without a heartbeat, after which an owner on another machine counts as dead
CHECK_EVERY_S = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LockHolder:
    """Who holds a folder's lock."""

    host: str
    pid: int
    is_alive: bool
    """Surely so on this machine; on another one, as long as the heartbeat is young."""


def lock_holder(folder: Folder) -> LockHolder | None:
    """Who holds the lock of a folder, told at once, without waiting for a heartbeat; None where nobody does."""
    other = _read(folder)
    if other is None:
        return None
    if other["host"] == socket.gethostname():
        is_alive = not _is_gone(other)
    else:
        beat = folder.modified_at(LOCK)
        is_alive = beat is not None and time.time() - beat.timestamp() < STANDSTILL_S
    return LockHolder(other["host"], other["pid"], is_alive)


@contextmanager
def hold_lock(folder: Folder) -> Iterator[None]:
    """Holds the folder's lock; ConfigError if a living driver has it."""
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "token": uuid.uuid4().hex,
        "beat": 0,
    }
    _take(folder, owner)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(folder, owner, stop), name="psreid-lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()
        _release(folder, owner)


def wait_until_free(folder: Folder, *, wait_s: float) -> None:
    """Returns when no living driver holds the lock, or after `wait_s`: one that was killed takes moments to be gone."""
    give_up_at = time.monotonic() + wait_s
    while time.monotonic() < give_up_at:
        other = _read(folder)
        if other is None or _is_dead(folder, other):
            return
        time.sleep(CHECK_EVERY_S / 4)


def _take(folder: Folder, owner: dict[str, Any]) -> None:
    text = json.dumps(owner).encode()
    while not folder.create_bytes(LOCK, text):
        other = _read(folder)
        if other is None or _is_dead(folder, other):
            folder.remove(LOCK)
            continue
        raise ConfigError(
            f"another psreid (process {other['pid']} on {other['host']}) is writing to {folder.uri}. "
            "Wait until it is done, stop it, or use another output folder."
        )


def _is_dead(folder: Folder, other: dict[str, Any]) -> bool:
    if other["host"] == socket.gethostname():
        return _is_gone(other)
    logger.warning(
        "%s is locked by %s, waiting up to %.0f s to see if it lives", folder.uri, other["host"], STANDSTILL_S
    )
    give_up_at = time.monotonic() + STANDSTILL_S
    while time.monotonic() < give_up_at:
        time.sleep(CHECK_EVERY_S)
        now = _read(folder)
        if now is None:
            return True
        if (now["token"], now["beat"]) != (other["token"], other["beat"]):
            return False
    return True


def _is_gone(other: dict[str, Any]) -> bool:
    """Whether the process, of this machine, has ended or is another one with its number."""
    try:
        return bool(abs(psutil.Process(other["pid"]).create_time() - other["started"]) > 1)
    except psutil.NoSuchProcess:
        return True


def _beat(folder: Folder, owner: dict[str, Any], stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(HEARTBEAT_S):
        beat += 1
        try:
            folder.write_json(LOCK, owner | {"beat": beat}, durable=False)
        except PsreidError as error:
            logger.warning("the lock of %s was not renewed: %s", folder.uri, error)


def _release(folder: Folder, owner: dict[str, Any]) -> None:
    try:
        found = _read(folder)
        if found is not None and found["token"] == owner["token"]:
            folder.remove(LOCK)
    except PsreidError as error:
        logger.warning("the lock of %s was not removed (%s); it will count as dead", folder.uri, error)


def _read(folder: Folder) -> dict[str, Any] | None:
    """The owner, or None if there is no lock or a half-written one of a driver that was killed."""
    for _ in range(3):
        if not folder.exists(LOCK):
            return None
        try:
            found: dict[str, Any] = folder.read_json(LOCK)
            return found
        except PsreidError:
            time.sleep(0.1)  # it may be being written or removed in this instant
    return None
