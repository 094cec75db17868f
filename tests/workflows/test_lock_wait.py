"""Waiting for the lock of a driver that is about to be gone."""

import subprocess
import sys
import time
from pathlib import Path

from workflows.lock import LOCK, hold_lock, wait_until_free
from workflows.storage import Folder

HOLD = """
import sys, time
from workflows.lock import hold_lock
from workflows.storage import Folder

with hold_lock(Folder(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_without_a_lock_is_free(tmp_path: Path) -> None:
    started = time.monotonic()
    wait_until_free(Folder(str(tmp_path)), wait_s=5)
    assert time.monotonic() - started < 1


def test_a_killed_drivers_lock_is_free_soon_and_a_living_ones_is_not(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", HOLD, folder.uri], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        started = time.monotonic()
        wait_until_free(folder, wait_s=1.0)
        assert time.monotonic() - started >= 1.0
        driver.kill()
    wait_until_free(folder, wait_s=5)
    assert folder.exists(LOCK)  # left by the dead; taken over by the next driver
    with hold_lock(folder):
        pass
