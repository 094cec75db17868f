"""Against a real MLflow server: runs that outlive its absence, registered models, whole commands."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeling.errors import PsreidError, WeightsError
from modeling.ps_reid.folder import model_folder, model_identity
from tests.tracking_server import TrackingServer
from workflows.progress import Summary
from workflows.storage import Folder
from workflows.sweep.config import SweepConfig
from workflows.tracking.config import TrackedConfig
from workflows.tracking.operations import KEY_TAG
from workflows.tracking.registry import local_model, pin_model, pin_models
from workflows.tracking.step import track_command
from workflows.tracking.tracking import TrackedRun, Tracking
from workflows.tracking.training import TrackedTraining
from workflows.train.listener import RunFinish, RunStart


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path_factory.mktemp("tracking"))
    server.start()
    yield server
    if server.is_running:
        server.stop()


@pytest.fixture
def server(process: TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackingServer:
    """A running server in the environment, and an empty cache of models."""
    if not process.is_running:
        process.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", process.uri)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return process


def runs_of(server: TrackingServer, key: str) -> list[Any]:
    client = server.client()
    experiments = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`{KEY_TAG}` = '{key}'"))


def told(server: TrackingServer, run: TrackedRun, name: str) -> list[tuple[int, float]]:
    (found,) = runs_of(server, run.key)
    return [(one.step, one.value) for one in server.client().get_metric_history(found.info.run_id, name)]


def test_figures_from_before_during_and_after_an_outage_are_all_there(server: TrackingServer, tmp_path: Path) -> None:
    tracking = Tracking.open(server.uri, experiment="outage", folder=Folder(str(tmp_path / "job")))
    run = tracking.run("a job")
    run.parameters({"tau": "0.1"})
    for step in (1, 2):
        run.figures(step, {"loss": 1 / step})
    assert tracking.flush(60)
    server.stop()
    for step in (3, 4):
        run.figures(step, {"loss": 1 / step})
    assert not tracking.flush(5.0)
    server.start()
    run.figures(5, {"loss": 1 / 5})
    run.file("note.txt", b"a picture, say", "samples")
    run.end()
    lines = tracking.close(60)
    assert "did not answer" in " ".join(lines)
    assert told(server, run, "loss") == [(step, 1 / step) for step in range(1, 6)]
    (found,) = runs_of(server, run.key)
    assert (found.info.status, found.data.params) == ("FINISHED", {"tau": "0.1"})
    assert [one.path for one in server.client().list_artifacts(found.info.run_id, "samples")] == ["samples/note.txt"]


def test_a_job_that_was_killed_goes_on_in_its_run_and_repeats_nothing(server: TrackingServer, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "job"))
    for _ in range(2):  # the second is the job after a kill
        tracking = Tracking.open(server.uri, experiment="resumed", folder=folder)
        run = tracking.run("a job")
        run.parameters({"tau": "0.1", "workers": "2"})
        run.figures(1, {"loss": 0.5}, time_ms=1_700_000_000_000)
        tracking.close(60)
    assert len(runs_of(server, run.key)) == 1
    assert told(server, run, "loss") == [(1, 0.5)]


def test_a_command_is_one_run_with_its_figures(server: TrackingServer, tmp_path: Path) -> None:
    class Settings(TrackedConfig):
        out: str
        """Folder."""
        model: str = "tiny"
        """Model."""

    config = Settings(out=str(tmp_path / "out"), experiment="commands")
    summary = track_command(
        "search", config, config.out, lambda: Summary("Found 2.", config.out, {"matches": 2, "note": "x"})
    )
    assert "Tracking" in summary.details[-1]
    experiment = server.client().get_experiment_by_name("commands")
    (run,) = server.client().search_runs([experiment.experiment_id])
    assert run.data.metrics == {"matches": 2.0}
    assert run.data.params["model"] == "tiny"
    assert run.data.tags["psreid.headline"] == "Found 2."
    assert run.info.status == "FINISHED"

    def fails() -> Summary:
        raise PsreidError("no such folder")

    with pytest.raises(PsreidError):
        track_command("search", config, config.out, fails)
    (run,) = server.client().search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert "no such folder" in run.data.tags["psreid.error"]


def train_once(server: TrackingServer, tmp_path: Path, name: str, mAP: float) -> TrackedRun:
    """What a training run of the shipped model would tell."""
    out = tmp_path / name
    out.mkdir()
    figures = out / "figures.jsonl"
    figures.write_text("".join(f'{{"step": {step}, "loss": {1 / step}}}\n' for step in (1, 2, 3)))
    picture = out / "sample.png"
    picture.write_bytes(b"\x89PNG")
    tracking = Tracking.open(server.uri, experiment="training", folder=Folder(str(out)))
    run = tracking.run(name)
    listener = TrackedTraining(
        run, data=[{"name": "frames", "digest": "abc", "source": "/frames"}], register_as="finder"
    )
    listener.on_start(RunStart("psreid-1", {"losses": {"tau": 0.1}}, str(out), 0, 3))
    for step in (1, 2, 3):
        listener.on_step(step, {"loss": 1 / step})
    listener.on_evaluation(3, {"eval_mAP": mAP})
    listener.on_finish(RunFinish(str(model_folder("tiny")), str(figures), [str(picture)], {"eval_mAP": mAP}))
    run.end()
    tracking.close(60)
    return run


def test_a_training_run_leaves_curves_samples_and_the_champion(server: TrackingServer, tmp_path: Path) -> None:
    run = train_once(server, tmp_path, "first", 0.5)
    (found,) = runs_of(server, run.key)
    client, run_id = server.client(), found.info.run_id
    assert found.data.params == {"losses.tau": "0.1"}
    assert told(server, run, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert [one.path for one in client.list_artifacts(run_id, "figures")] == ["figures/curves.png"]
    assert [one.path for one in client.list_artifacts(run_id, "samples")] == ["samples/sample.png"]
    assert [one.dataset.digest for one in found.inputs.dataset_inputs] == ["abc"]
    assert client.get_model_version_by_alias("finder", "champion").version == "1"
    train_once(server, tmp_path, "the same again", 0.5)
    assert len(client.search_model_versions("name = 'finder'")) == 1  # the same weights are one version


def test_a_registered_model_is_loaded_by_alias_from_a_cache_named_by_version(
    server: TrackingServer, tmp_path: Path
) -> None:
    train_once(server, tmp_path, "any", 0.6)
    pinned = pin_model("models:/finder@champion")
    assert pinned == "models:/finder/1"
    swept = SweepConfig(out="o", space={"losses.tau": [0.1]}, settings={"start_from": "models:/finder@champion"})
    assert pin_models(swept).settings == {"start_from": "models:/finder/1"}
    folder = local_model(pinned)
    assert "version-1" in folder
    assert model_identity(folder) == model_identity("tiny")
    with pytest.raises(WeightsError, match=r"it has finder \(@champion\)"):
        pin_model("models:/finder@nobody")
    server.stop()
    assert local_model(pinned) == folder  # what is in the cache needs no server
