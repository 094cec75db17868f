"""A training run in MLflow: settings, losses over steps, curves, sample masks, the model and its registry entry."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from modeling.ps_reid.folder import model_identity
from workflows.progress import Summary
from workflows.storage import Folder, split_uri
from workflows.tracking.config import TrackedConfig, flat_settings, tracking_uri
from workflows.tracking.curves import draw_curves, read_curves
from workflows.tracking.identity import code_identity, data_identity
from workflows.tracking.operations import MODEL_FOLDER, RegisterModel
from workflows.tracking.tracking import TrackedRun, Tracking
from workflows.train.listener import RunFinish, RunStart, TrainingListener

CHAMPION = "champion"
CURVES_FILE = "curves.png"


class TrackedTraining(TrainingListener):
    """Writes what a training run tells into one MLflow run."""

    def __init__(
        self,
        run: TrackedRun,
        *,
        data: Sequence[Mapping[str, str]] = (),
        register_as: str | None = None,
        metric: str = "eval_mAP",
    ) -> None:
        """`register_as` names the registered model that the result becomes a version of; None keeps it with the run."""
        self._run, self._data, self._register_as, self._metric = run, data, register_as, metric

    def on_start(self, run: RunStart) -> None:
        self._run.parameters(flat_settings(run.config))
        self._run.data(self._data)
        self._run.tags({"psreid.name": run.name, "psreid.output": run.out})

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.figures(step, metrics)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.figures(step, metrics)

    def on_finish(self, run: RunFinish) -> None:
        folder, name = split_uri(run.figures_file)
        curves = read_curves(folder.read_bytes(name).decode().splitlines())
        if curves:
            self._run.file(CURVES_FILE, draw_curves(curves, title=self._run.key[:8]), "figures")
        for picture in run.sample_files:
            where, picture_name = split_uri(picture)
            self._run.file(picture_name, where.read_bytes(picture_name), "samples")
        value = run.metrics.get(self._metric)
        if self._register_as and value is not None:
            self._run.tracking.put(
                registration(
                    self._run, run.model, self._register_as, self._metric, value, higher_is_better=True, data=self._data
                )
            )
        else:
            self._run.upload(Path(run.model), MODEL_FOLDER)

    def on_failure(self, message: str) -> None:
        self._run.tags({"psreid.error": message[:500]})


def track_training(
    command: str, config: TrackedConfig, out: str, run: Callable[[Sequence[TrainingListener]], Summary]
) -> Summary:
    """What `run` gives, called with a listener that writes to MLflow where tracking is set."""
    uri = tracking_uri(config)
    if uri is None:
        return run([])
    folder, data = Folder(out), data_identity(config)
    tracking = Tracking.open(uri, experiment=config.experiment, folder=folder)
    told: list[str] = []
    with ExitStack() as stack:
        stack.callback(lambda: told.extend(tracking.close()))
        name = folder.uri.rstrip("/").rpartition("/")[2]
        tracked = stack.enter_context(tracking.run(f"{command} {name}", tags=code_identity(command)).ending())
        listener = TrackedTraining(tracked, data=data, register_as=getattr(config, "register_as", None))
        summary = run([listener])
        tracked.tags({"psreid.headline": summary.headline})
    return replace(summary, details=[*summary.details, *told])


def registration(
    run: TrackedRun,
    model: str,
    name: str,
    metric: str,
    value: float,
    *,
    higher_is_better: bool,
    data: Sequence[Mapping[str, str]],
) -> RegisterModel:
    """The model at the local folder `model` as a version of the registered model `name`, and the champion if best."""
    digests = "+".join(sorted(one["digest"] for one in data))
    identity = model_identity(model)
    return RegisterModel(run.key, model, name, CHAMPION, identity, metric, value, higher_is_better, digests)
