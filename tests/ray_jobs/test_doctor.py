"""What `psreid doctor` finds wrong, and that it says how to mend it."""

from importlib import metadata
from pathlib import Path

import pytest

from modeling.errors import WeightsError
from ray_jobs.commands import doctor
from ray_jobs.commands.doctor import DoctorConfig, Finding, run_doctor
from tests.s3_server import SECRET_KEY, S3Server
from workflows.progress import Progress


def test_this_environment_has_the_declared_versions() -> None:
    assert [finding.level for finding in doctor.check_versions()] == ["OK", "OK"]


def test_a_wrong_or_missing_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["torch>=99", "numpy>=1", "no-such-package>=1", "pytest>=9; extra == 'dev'"]
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    found = list(doctor.check_versions())
    assert [finding.level for finding in found] == ["OK", "FAIL", "FAIL"]
    assert "torch>=99 is needed: run `make install`" in found[1].text
    assert "no-such-package is missing" in found[2].text


def test_little_memory_and_disk_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_MEMORY_BYTES", 1 << 50)
    monkeypatch.setattr(doctor, "MIN_FREE_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(doctor, "MIN_SHARED_MEMORY_BYTES", 1 << 60)
    assert {finding.level for finding in [*doctor.check_memory(), *doctor.check_disk()]} == {"WARN"}


def test_storage_is_written_read_and_left_clean(tmp_path: Path, s3_server: S3Server) -> None:
    for uri in (str(tmp_path), s3_server.make_bucket("doctor")):
        (finding,) = doctor.check_storage(uri)
        assert finding.level == "OK", finding
    assert list(tmp_path.iterdir()) == [] and list((s3_server.root / "doctor").iterdir()) == []


def test_storage_that_cannot_be_reached_fails_without_the_secret(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finding,) = doctor.check_storage("s3://no-such-bucket/x")
    assert finding.level == "FAIL" and "there is no bucket 'no-such-bucket'" in finding.text
    monkeypatch.setattr(doctor, "STORAGE_PATIENCE_S", 0.5)
    s3_server.stop()
    (finding,) = doctor.check_storage("s3://doctor/x")
    assert finding.level == "FAIL" and s3_server.endpoint in finding.text and SECRET_KEY not in finding.text


def test_weights_that_do_not_load_are_told_in_their_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from modeling.ps_reid.judge import Judge

    def refuse(model: str) -> Judge:
        raise WeightsError(f"no model at {model!r}; give the folder of a trained model")

    monkeypatch.setattr(Judge, "load", refuse)
    assert list(doctor.check_weights("x")) == [
        Finding("FAIL", "weights", "no model at 'x'; give the folder of a trained model")
    ]


def test_ray_runs_a_task_and_counts_cores(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "shutdown", lambda: None)  # the cluster belongs to the test session
    levels = {finding.subject: finding.level for finding in doctor.check_ray()}
    assert levels["Ray"] == "OK" and levels["cores"] == "OK" and "GPUs" in levels


@pytest.mark.parametrize(("level", "code"), [("OK", 0), ("WARN", 0), ("FAIL", 1)])
def test_the_exit_code_follows_the_worst_finding(level: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Finding]:
        raise RuntimeError("the check is broken")

    checks = {"a": lambda: [Finding("OK", "a", ""), Finding(level, "b", "")]}
    monkeypatch.setattr(doctor, "_checks", lambda config: checks)
    summary = run_doctor(DoctorConfig(), Progress())
    assert summary.exit_code == code and len(summary.details) == 2
    monkeypatch.setattr(doctor, "_checks", lambda config: {"a": broken})
    assert "the check itself failed: RuntimeError" in run_doctor(DoctorConfig(), Progress()).details[0]
