"""Steps on a real Ray: every shard once, poison set aside, failures told plainly, finished steps left alone."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from modeling.errors import ConfigError, JobError, WeightsError
from tests.faults.toy import ROWS_PER_SHARD, run_toy, toy_shards
from workflows import runner
from workflows.ledger import Ledger, Shard
from workflows.progress import Progress
from workflows.ray_cluster import fit_to_cluster, stop_ray, warm_workers
from workflows.runner import QuarantineLimit
from workflows.stages import Resources, StageSpec
from workflows.storage import Folder
from workflows.worker import KILLED


class Recorder(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.committed, self.rows, self.lines, self.done = 0, 0, list[str](), 0

    def start(self, what: str, *, total: int, done: int = 0, unit: str = "shard") -> None:
        self.done = done

    def advance(self, count: int = 1, *, rows: int = 0) -> None:
        self.committed += count
        self.rows += rows

    def say(self, line: str) -> None:
        self.lines.append(line)


def squares(out: Path) -> list[int]:
    return sorted(Ledger.read(Folder(str(out))).read_table()["square"].to_pylist())


def expected_squares(shards: int, *, without: tuple[int, ...] = ()) -> list[int]:
    return [n * n for n in range(shards * ROWS_PER_SHARD) if n % 10 and n not in without]


@pytest.mark.usefixtures("ray_cluster")
class TestOnRay:
    def test_every_row_comes_out_once_and_a_second_run_does_nothing(self, tmp_path: Path) -> None:
        out, progress = tmp_path / "out", Recorder()
        manifest = run_toy(str(out), shards=10, progress=progress)
        assert squares(out) == expected_squares(10)
        assert (manifest.shards, manifest.rows_read, manifest.quarantined) == (10, 80, 0)
        assert manifest.drops == {"multiple_of_ten": 8}
        assert (progress.committed, progress.rows) == (10, manifest.rows)
        assert not (out / "attempts").exists() and not (out / "lock.json").exists()

        again = Recorder()
        assert run_toy(str(out), shards=10, progress=again) == manifest
        assert again.committed == 0 and "already complete" in again.lines[0]

    def test_more_shards_than_one_execution_takes_go_in_waves(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "SHARDS_PER_WAVE", 3)
        progress = Recorder()
        run_toy(str(tmp_path / "out"), shards=7, progress=progress)
        assert squares(tmp_path / "out") == expected_squares(7)
        assert progress.committed == 7

    def test_idle_workers_import_what_later_steps_need(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import ray

        def has_imported(module: str) -> bool:
            time.sleep(0.05)  # so that two calls meet two workers
            return module in sys.modules

        def is_imported_somewhere(module: str) -> bool:
            task = ray.remote(num_cpus=1)(has_imported)
            return any(ray.get([task.remote(module) for _ in range(2)]))

        assert not is_imported_somewhere("wave")
        warm_workers(("wave",))
        assert any(is_imported_somewhere("wave") for _ in range(40))
        monkeypatch.setenv("RAY_ADDRESS", "a cluster of others")
        warm_workers(("a.module.that.is.not.there",))  # would be an error in the worker's log

    def test_a_command_alone_looks_for_finished_tasks_more_often_and_stops_its_own_ray_only(
        self, tmp_path: Path
    ) -> None:
        import ray
        from ray.data._internal.execution import streaming_executor_state

        run_toy(str(tmp_path / "out"), shards=1)
        assert streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S == runner.POLL_S
        stop_ray()
        assert ray.is_initialized()

    def test_a_rerun_does_only_what_is_missing(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        run_toy(str(out), shards=4)
        kept = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
        gone = sorted(kept)[0]
        (out / gone).unlink()
        (out / "done" / f"{gone.removeprefix('part-').removesuffix('.parquet')}.json").unlink()
        progress = Recorder()
        run_toy(str(out), shards=4, progress=progress)
        assert (progress.done, progress.committed) == (3, 1)
        now = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
        assert {name for name in kept if now[name] != kept[name]} == {gone}
        assert squares(out) == expected_squares(4)

    def test_a_driver_killed_after_its_last_shard_leaves_nothing_behind(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        manifest = run_toy(str(out), shards=2)
        (out / "manifest.json").unlink()
        (out / "attempts" / "run").mkdir(parents=True)
        assert run_toy(str(out), shards=2).rows == manifest.rows
        assert not (out / "attempts").exists()

    @pytest.mark.parametrize("pool", [(1, 1), None], ids=["pools", "tasks"])
    def test_rows_that_raise_or_kill_are_set_aside_and_the_rest_completes(
        self, tmp_path: Path, pool: tuple[int, int] | None
    ) -> None:
        out = tmp_path / "out"
        manifest = run_toy(
            str(out), shards=6, source={"raise_at": (2,)}, square={"raise_at": (13,), "die_at": (21,)},
            max_quarantine_share=0.1, pool=pool,
        )  # fmt: skip
        assert squares(out) == expected_squares(6, without=(2, 13, 21))
        assert manifest.quarantined == 3
        rows = Ledger.read(Folder(str(out))).read_quarantine().to_pylist()
        assert {(row["row_id"], row["reason"]) for row in rows} == {
            ("row-2", "ValueError"),
            ("row-13", "ValueError"),
            ("row-21", KILLED),
        }

    def test_a_source_row_that_kills_is_isolated_by_the_plan_of_rows(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        run_toy(str(out), shards=3, source={"die_at": (9,)}, max_quarantine_share=0.1)
        assert squares(out) == expected_squares(3, without=(9,))

    def test_too_much_quarantine_fails_early_and_says_why(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        bad = tuple(range(0, 400, 2))
        with pytest.raises(JobError) as failed:
            run_toy(str(out), shards=50, square={"raise_at": bad, "sleep_s": 0.05}, max_quarantine_share=0.05)
        assert "more than max_quarantine_share 0.05 allows" in str(failed.value)
        assert "ValueError" in str(failed.value) and f"{out}/quarantine" in str(failed.value)
        assert len(Ledger.read(Folder(str(out))).done_ids()) < 50  # it did not wait for the end

    def test_a_rerun_after_too_much_quarantine_fails_again_unless_it_is_accepted(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        for _ in range(2):
            with pytest.raises(JobError, match="1 of 16 rows were quarantined"):
                run_toy(str(out), shards=2, square={"raise_at": (15,)}, max_quarantine_share=0.01)
        assert run_toy(str(out), shards=2, square={"raise_at": (15,)}, max_quarantine_share=0.5).quarantined == 1

    def test_a_stage_that_cannot_start_fails_fast_in_its_own_words(self, tmp_path: Path) -> None:
        started = time.monotonic()
        with pytest.raises(WeightsError, match=r"^there are no weights at /nope\. Give the folder of a saved model\.$"):
            run_toy(str(tmp_path / "out"), shards=40, square={"weights": "/nope"})
        assert time.monotonic() - started < 60

    def test_another_config_is_refused_before_anything_runs(self, tmp_path: Path) -> None:
        run_toy(str(tmp_path / "out"), shards=1)
        with pytest.raises(ConfigError, match=r"config\.shards: there 1, now 2"):
            run_toy(str(tmp_path / "out"), shards=2)

    def test_no_shards_at_all_is_a_finished_step(self, tmp_path: Path) -> None:
        assert run_toy(str(tmp_path / "out"), shards=0).rows == 0


def test_a_finished_step_never_imports_ray(tmp_path: Path, ray_cluster: None) -> None:
    run_toy(str(tmp_path / "out"), shards=2)
    code = (
        "import sys; from tests.faults.toy import run_toy; run_toy(sys.argv[1], shards=2); "
        "print([name for name in sys.modules if name.split('.')[0] in ('ray', 'torch', 'pandas')])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_goes_on_while_its_ray_stops() -> None:
    code = (
        "import threading, ray; from workflows import ray_cluster as r; r.process_is_command = True; r.ensure_ray(1); "
        "r.stop_ray(); [t.join() for t in threading.enumerate() if t.name == 'stop-ray']; print(ray.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class TestFitToCluster:
    def specs(self, *cpus: float, gpus: float = 0.0) -> list[StageSpec]:
        task = StageSpec(object, {}, Resources(cpus=cpus[0]))
        return [task] + [StageSpec(object, {}, Resources(cpus=c, gpus=gpus), pool=(1, 4)) for c in cpus[1:]]

    def test_what_fits_is_left_alone(self) -> None:
        specs = self.specs(1, 1, 2)
        assert fit_to_cluster(specs, {"CPU": 8.0}) == specs

    def test_tasks_that_ray_fuses_are_counted_once(self) -> None:
        task, smaller = (StageSpec(object, {}, Resources(cpus=cpus)) for cpus in (2, 1))
        assert fit_to_cluster([task, task], {"CPU": 2.0}) == [task, task]
        assert fit_to_cluster([task, smaller], {"CPU": 2.0}) != [task, smaller]

    def test_what_does_not_fit_is_shrunk_until_all_stages_fit_at_once(self) -> None:
        fitted = fit_to_cluster(self.specs(1, 2, 3), {"CPU": 2.0})
        assert sum(spec.resources.cpus for spec in fitted) <= 2.0
        assert all(spec.resources.cpus >= 0.3 for spec in fitted)
        assert [spec.pool for spec in fitted] == [None, (1, 1), (1, 1)]

    def test_a_missing_gpu_is_an_error_here_and_awaited_on_a_cluster_that_grows(self) -> None:
        with pytest.raises(ConfigError, match=r"2 GPU\(s\) are needed at once, and Ray sees 0"):
            fit_to_cluster(self.specs(1, 1, 1, gpus=1.0), {"CPU": 8.0})
        assert fit_to_cluster(self.specs(1, 1, gpus=1.0), {}, can_grow=True) == self.specs(1, 1, gpus=1.0)


def test_the_quarantine_limit_is_lost_only_when_nothing_can_save_it() -> None:
    limit = QuarantineLimit(toy_shards(10), 0.05)  # 80 rows: 4 are allowed
    assert [limit.add(2), limit.add(2), limit.add(1)] == [False, False, True]
    unknown = QuarantineLimit([*toy_shards(1), Shard("x", {})], 0.05)
    assert not unknown.add(10**6)
