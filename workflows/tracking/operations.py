"""What can be sent to an MLflow server: each operation is plain data, can be sent twice, and can be kept as JSON.

A run is named by our own key, never by the server's id, so that operations can be made while the server is away: the
key is a tag of the run, and `Sender` finds or makes the run that has it. MLflow ignores a point that it has already
(same name, time, step and value), so sending again after an unclear answer adds nothing. Knows nothing of queues.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from workflows.storage import JSON

KEY_TAG = "psreid.key"
PARENT_TAG = "mlflow.parentRunId"
IDENTITY_TAG = "psreid.model_identity"
MODEL_FOLDER = "model"
POINTS_PER_CALL, PARAMETERS_PER_CALL = 1000, 100  # what MLflow takes at once
LONGEST_VALUE = 6000  # characters of a parameter that MLflow keeps

Point = tuple[str, float, int, int]
"""(name, value, time in ms since 1970, step)."""


class UnknownRunError(Exception):
    """The server has no run of this key: it was deleted, or its creation was refused."""


class Sender:
    """An MLflow client that knows runs by key."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._run_ids: dict[str, str] = {}
        self._experiment_ids: dict[str, str] = {}

    def run_id(self, key: str) -> str:
        """The server's id of the run. Raises UnknownRunError when there is none."""
        if key not in self._run_ids:
            found = self._find(key)
            if found is None:
                raise UnknownRunError(f"the server has no run with the tag {KEY_TAG}={key}")
            self._run_ids[key] = found
        return self._run_ids[key]

    def experiment_id(self, name: str) -> str:
        """The id of the experiment, which is made if there is none."""
        if name not in self._experiment_ids:
            found = self.client.get_experiment_by_name(name)
            self._experiment_ids[name] = found.experiment_id if found else self.client.create_experiment(name)
        return self._experiment_ids[name]

    def open_run(self, start: "StartRun") -> None:
        """Makes the run, or sets the one that has its key to running again."""
        found = self._find(start.key)
        if found is not None:
            self.client.update_run(found, status="RUNNING")
            self._run_ids[start.key] = found
            return
        tags = dict(start.tags) | {KEY_TAG: start.key}
        if start.parent_key:
            tags[PARENT_TAG] = self.run_id(start.parent_key)
        run = self.client.create_run(
            self.experiment_id(start.experiment), start_time=start.started_ms, tags=tags, run_name=start.name
        )
        self._run_ids[start.key] = run.info.run_id

    def _find(self, key: str) -> str | None:
        experiments = [found.experiment_id for found in self.client.search_experiments()]
        runs = self.client.search_runs(experiments, f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return runs[0].info.run_id if runs else None


class Operation(Protocol):
    """Something to send about the run `key`."""

    @property
    def key(self) -> str: ...

    def send(self, sender: Sender) -> None:
        """Sends it; sending twice leaves the server as sending once."""


@dataclass(frozen=True)
class StartRun:
    """A run begins, or goes on."""

    key: str
    experiment: str
    name: str
    started_ms: int
    parent_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def send(self, sender: Sender) -> None:
        sender.open_run(self)


@dataclass(frozen=True)
class Parameters:
    """Settings of a run. MLflow never changes one, so those it has already are left as they are."""

    key: str
    values: Mapping[str, str]

    def send(self, sender: Sender) -> None:
        from mlflow.entities import Param

        run_id = sender.run_id(self.key)
        known = sender.client.get_run(run_id).data.params
        new = [Param(name, value[:LONGEST_VALUE]) for name, value in self.values.items() if name not in known]
        for start in range(0, len(new), PARAMETERS_PER_CALL):
            sender.client.log_batch(run_id, params=new[start : start + PARAMETERS_PER_CALL])


@dataclass(frozen=True)
class Points:
    """Figures of a run over its steps."""

    key: str
    points: list[Point]

    def send(self, sender: Sender) -> None:
        from mlflow.entities import Metric

        run_id = sender.run_id(self.key)
        for start in range(0, len(self.points), POINTS_PER_CALL):
            some = self.points[start : start + POINTS_PER_CALL]
            sender.client.log_batch(run_id, metrics=[Metric(*point) for point in some])


@dataclass(frozen=True)
class Tags:
    """Words about a run, which may change."""

    key: str
    values: Mapping[str, str]

    def send(self, sender: Sender) -> None:
        run_id = sender.run_id(self.key)
        for name, value in self.values.items():
            sender.client.set_tag(run_id, name, value)


@dataclass(frozen=True)
class Inputs:
    """The data that a run read: name, digest, and where it lies."""

    key: str
    data: Sequence[Mapping[str, str]]

    def send(self, sender: Sender) -> None:
        from mlflow.entities import Dataset, DatasetInput

        sets = [
            DatasetInput(Dataset(name=one["name"], digest=one["digest"], source_type="psreid", source=one["source"]))
            for one in self.data
        ]
        sender.client.log_inputs(sender.run_id(self.key), datasets=sets)


@dataclass(frozen=True)
class Upload:
    """A file, or a folder with everything in it, kept with the run under `folder`."""

    key: str
    path: str
    folder: str

    def send(self, sender: Sender) -> None:
        run_id, path = sender.run_id(self.key), Path(self.path)
        if path.is_dir():
            sender.client.log_artifacts(run_id, str(path), self.folder or None)
        else:
            sender.client.log_artifact(run_id, str(path), self.folder or None)


@dataclass(frozen=True)
class EndRun:
    """A run has ended: FINISHED, FAILED or KILLED."""

    key: str
    status: str
    ended_ms: int

    def send(self, sender: Sender) -> None:
        sender.client.set_terminated(sender.run_id(self.key), self.status, self.ended_ms)


@dataclass(frozen=True)
class RegisterModel:
    """A model folder in the Model Registry, and the alias on it where it is the best so far.

    The alias stays where a version lies that was measured by the same figure on the same data, and better.
    """

    key: str
    folder: str
    """Local folder of the saved model."""
    name: str
    alias: str
    identity: str
    """Digest of the weights: the same model is registered once."""
    metric: str
    value: float
    higher_is_better: bool
    data: str
    """Digest of what it was measured on."""

    def send(self, sender: Sender) -> None:
        from mlflow.exceptions import RestException

        client, run_id = sender.client, sender.run_id(self.key)
        if not client.search_registered_models(f"name = '{self.name}'"):
            client.create_registered_model(self.name)
        known = client.search_model_versions(f"name = '{self.name}'")
        version = next((one for one in known if one.tags.get(IDENTITY_TAG) == self.identity), None)
        if version is None:
            client.log_artifacts(run_id, self.folder, MODEL_FOLDER)
            version = client.create_model_version(
                self.name, f"runs:/{run_id}/{MODEL_FOLDER}", run_id, tags=self._tags, await_creation_for=0
            )
        try:
            champion = client.get_model_version_by_alias(self.name, self.alias)
        except RestException:
            champion = None
        if champion is None or not self._is_worse_than(champion.tags):
            client.set_registered_model_alias(self.name, self.alias, version.version)

    @property
    def _tags(self) -> dict[str, str]:
        return {
            IDENTITY_TAG: self.identity,
            "psreid.metric": self.metric,
            "psreid.value": repr(self.value),
            "psreid.data": self.data,
        }

    def _is_worse_than(self, champion: Mapping[str, str]) -> bool:
        if any(champion.get(tag) != self._tags[tag] for tag in ("psreid.metric", "psreid.data")):
            return False
        theirs = float(champion["psreid.value"])
        return self.value < theirs if self.higher_is_better else self.value > theirs


KINDS = {kind.__name__: kind for kind in (StartRun, Parameters, Points, Tags, Inputs, Upload, EndRun, RegisterModel)}


def to_json(operations: Iterable[Operation]) -> list[JSON]:
    """The operations as JSON, to be sent another day."""
    return [{"kind": type(one).__name__, **asdict(one)} for one in operations]  # type: ignore[call-overload]


def from_json(stored: Iterable[Mapping[str, Any]]) -> list[Operation]:
    """What `to_json` kept."""
    operations: list[Operation] = []
    for one in stored:
        values = {name: value for name, value in one.items() if name != "kind"}
        operations.append(KINDS[one["kind"]](**values))
    return operations
