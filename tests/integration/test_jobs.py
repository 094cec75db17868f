"""Jobs on a real cluster of three nodes, each with its own address: submitted, hurt, submitted again.

The archive is filmed by `psreid synth` and lies on a disk that all nodes share; each node offers one core.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cluster.local.local_cluster import LocalCluster
from tests.faults.harness import WORKER_PREFIXES, count_markers, step_contents, step_folders
from workflows.ledger import Ledger
from workflows.storage import Folder

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
FRAMES, SHARD_FRAMES = 72, 4
REFUSED_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A head and two workers, whose S3 endpoint refuses every connection."""
    started = LocalCluster.start(
        workers=2,
        environment={
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        },
    )  # fmt: skip
    yield started
    started.stop()


class Psreid:
    """Runs `psreid` as a person at another machine would, in an empty project folder."""

    def __init__(self, cluster: LocalCluster, project: Path) -> None:
        self.cluster, self.project = cluster, project

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        return inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **self.cluster.environment}

    def interrupted_at(self, text: str, *words: str) -> str:
        """What the command printed, and its exit code, when Ctrl-C came as soon as it had printed `text`."""
        process = subprocess.Popen(
            [sys.executable, "-m", "ray_jobs", *words],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert process.stdout is not None
        printed = ""
        while text not in printed and (line := process.stdout.readline()):
            printed += line
        process.send_signal(signal.SIGINT)
        printed += process.communicate(timeout=60)[0] + f"[exit code {process.returncode}]"
        print(f"$ psreid {' '.join(words)}   # Ctrl-C\n{printed}")
        return printed

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "ray_jobs", *words],
            cwd=self.project,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        print(f"$ psreid {' '.join(words)}\n{done.stdout}[exit code {done.returncode}]")
        return done


@pytest.fixture(scope="module")
def psreid(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Psreid:
    return Psreid(cluster, tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def index(psreid: Psreid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An indexed archive, made by one job of three commands."""
    root = tmp_path_factory.mktemp("archive")
    done = psreid(
        "submit", "--",
        "synth", f"{root}/a", "--frames", str(FRAMES), "--cameras", "3", "--identities", "4", "--seed", "3", "--",
        "ingest", f"{root}/a/videos", f"{root}/frames", "--detections", f"{root}/a/detections", "--min-score", "0.3",
        "--min-height", "40", "--min-width", "12", "--shard-frames", str(SHARD_FRAMES), "--",
        "index", f"{root}/frames", f"{root}/index",
    )  # fmt: skip
    assert done.returncode == 0
    return root / "index"


def search(index: Path, out: Path) -> list[str]:
    """A search that judges every frame."""
    words = ["search", str(index), str(out), "--text", "a man in a red coat", "--recall", "none", "--no-report"]
    return [*words, "--threshold", "-100", "--stop-after", "judge", "--judge-actors", "2", "--quiet"]


@pytest.fixture(scope="module")
def single_node(psreid: Psreid, index: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Every row of the search by a Ray of one node on this machine."""
    out = tmp_path_factory.mktemp("single") / "out"
    assert psreid(*search(index, out)).returncode == 0
    return contents(out)


def contents(out: Path) -> dict[str, dict[str, object]]:
    return {str(step.relative_to(out)): step_contents(step) for step in step_folders(out)}


def submitted_id(done: subprocess.CompletedProcess[str]) -> str:
    assert "submitted " in done.stdout, done.stdout
    return done.stdout.split("submitted ")[1].split()[0].rstrip(",")


def num_matches(out: Path) -> int:
    return Ledger.read(Folder(str(out))).read_table(["frame_id"]).num_rows


def wait_for(condition: Callable[[], object], within_s: float = 240) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def drivers_of(out: Path) -> list[psutil.Process]:
    """Driver processes of the job that writes to `out`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "ray_jobs.submission.driver" in words and str(out) in words:
            found.append(process)
    return found


def busiest_worker(cluster: LocalCluster) -> int:
    """Number of the worker node on which most processes hold a stage of the job."""

    def stages(number: int) -> int:
        tree = psutil.Process(cluster.nodes[number].pid).children(recursive=True)
        names = [" ".join(process.cmdline()[:1]) for process in tree if process.is_running()]
        return sum(name.startswith(WORKER_PREFIXES) for name in names)

    return max(range(1, len(cluster.nodes)), key=stages)


def status_without_token(url: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return int(opener.open(url, timeout=10).status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("path", ["/api/version", "/api/jobs/", "/nodes?view=summary", "/api/v0/logs"])
def test_the_head_refuses_a_request_without_the_token(cluster: LocalCluster, path: str) -> None:
    assert status_without_token(cluster.dashboard + path) == 401


def test_a_submitted_search_equals_a_search_on_one_node(
    psreid: Psreid, index: Path, single_node: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = psreid("submit", "--", *search(index, out))
    assert first.returncode == 0 and "succeeded after" in first.stdout
    assert contents(out) == single_node and num_matches(out) == FRAMES
    second = psreid("submit", "--", *search(index, out))
    assert second.returncode == 0 and "has succeeded already, nothing was submitted" in second.stdout
    job_id = submitted_id(first)
    listed = psreid("jobs", "list")
    assert f"{job_id}  SUCCEEDED" in listed.stdout
    assert psreid("jobs", "status", job_id).returncode == 0
    assert "Found 1 of 1 query" in psreid("jobs", "logs", job_id).stdout


def test_a_job_that_was_killed_and_stopped_continues_each_time(
    psreid: Psreid, index: Path, single_node: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("--", *search(index, out))
    job_id = submitted_id(psreid("submit", "--no-wait", *command))
    same = psreid("submit", "--no-wait", *command)
    assert "already, nothing new was submitted" in same.stdout and job_id in same.stdout
    wait_for(lambda: count_markers(out) >= 2)
    for driver in drivers_of(out):
        driver.kill()
    done_before = {path: path.stat().st_mtime_ns for path in out.rglob("part-*.parquet")}
    wait_for(lambda: f"{job_id}  FAILED (137)" in psreid("jobs", "list").stdout)
    assert not (out / "manifest.json").exists(), "it was killed too late to show anything"

    second = psreid.interrupted_at("Running entrypoint", "submit", *command)
    assert f"submitted {job_id}-2, attempt 2" in second
    assert f"Stopped watching; the job goes on: {job_id}-2." in second and "[exit code 130]" in second
    stopped = psreid("jobs", "stop", f"{job_id}-2")
    assert stopped.returncode == 0 and f"Stopped {job_id}-2" in stopped.stdout

    third = psreid("submit", *command)
    assert third.returncode == 0 and f"submitted {job_id}-3, attempt 3" in third.stdout
    assert contents(out) == single_node
    untouched = [path for path, changed in done_before.items() if path.stat().st_mtime_ns == changed]
    assert len(untouched) >= 2, "what was done before was done again"


def make_distribution(folder: Path, name: str, version: str, *requires: str) -> Path:
    """Metadata of an installed package, for a machine that differs from the cluster."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join(lines + [f"Requires-Dist: {text}" for text in requires]) + "\n")
    return folder


@pytest.mark.parametrize("case", ["changed package", "missing package", "storage", "missing input"])
def test_what_cannot_work_is_refused_by_the_job_at_once(psreid: Psreid, index: Path, tmp_path: Path, case: str) -> None:
    words, environment, expected = search(index, tmp_path / "out"), {}, ""
    if case == "changed package":
        environment = {"PYTHONPATH": f"{make_distribution(tmp_path, 'torch', '9.9.9')}{os.pathsep}{ROOT}"}
        expected = "and 9.9.9 where the job was submitted"
    elif case == "missing package":
        other = make_distribution(tmp_path, "psreid", "0.1.0", "nowhere>=1")
        environment, expected = {"PYTHONPATH": f"{other}{os.pathsep}{ROOT}"}, "nowhere is missing on the cluster"
    elif case == "storage":
        words, expected = ["index", "s3://archive/frames", "s3://archive/index"], "cannot look up s3://archive"
    else:
        words, expected = ["index", "/nowhere/frames", str(tmp_path / "out")], "/nowhere/frames"
    started = time.monotonic()
    done = psreid("submit", "--", *words, **environment)
    assert done.returncode == 2
    lines = [line for line in done.stdout.splitlines() if line.startswith("psreid: error:")]
    assert len(lines) == 1 and expected in lines[0], done.stdout
    assert time.monotonic() - started < REFUSED_WITHIN_S


def test_what_cannot_be_reached_is_refused_by_the_client(psreid: Psreid, tmp_path: Path) -> None:
    words = ("submit", "--", "index", "s3://archive/frames", "s3://archive/index")
    for environment, expected in (
        ({"RAY_AUTH_TOKEN": "0" * 32}, "refused the token"),
        ({"RAY_AUTH_MODE": "disabled"}, "wants a token and none was given"),
        ({"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}, "connection refused"),
        ({"RAY_API_SERVER_ADDRESS": "http://no-such-host.invalid:8265"}, "no Ray cluster answers"),
    ):
        started = time.monotonic()
        done = psreid(*words, **environment)
        assert done.returncode == 2 and expected in done.stdout
        assert time.monotonic() - started < REFUSED_WITHIN_S


def test_a_node_lost_in_the_middle_changes_no_row(
    psreid: Psreid, cluster: LocalCluster, index: Path, single_node: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert psreid("submit", "--no-wait", "--", *search(index, out)).returncode == 0
    wait_for(lambda: count_markers(out) >= 2)
    victim = busiest_worker(cluster)
    cluster.kill_node(victim)
    assert not (out / "manifest.json").exists(), "the node was lost too late to show anything"
    assert not cluster.nodes[victim].is_alive
    watched = psreid("submit", "--", *search(index, out))
    assert watched.returncode == 0 and "already, nothing new was submitted" in watched.stdout
    assert contents(out) == single_node
