"""Checkpoints of a training run: sharded, whole or absent, the last one never gone before the next is there.

    state/<stage>/<step>/worker-<rank>.safetensors   a worker's share of the trained parameters and their moments
    state/<stage>/<step>/complete.json               written last, by one worker: step, workers, figures file

A folder without its marker does not exist for readers. Older steps of a stage are removed after the marker is there.
Works on local disk and S3. Knows nothing of models or DeepSpeed.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from safetensors.torch import load, save
from torch import Tensor

from modeling.errors import DataError
from workflows.storage import Folder

MARKER = "complete.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint."""

    stage: int
    step: int
    """Steps of the stage that are done."""
    workers: int

    @property
    def name(self) -> str:
        return f"state/{self.stage}/{self.step:08d}"


class StateStore:
    """The checkpoints of one run's folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def newest(self, stage: int) -> Saved | None:
        """The last complete checkpoint of a stage."""
        found = self._complete(stage)
        return found[-1] if found else None

    def write_share(self, stage: int, step: int, rank: int, tensors: Mapping[str, Tensor]) -> None:
        """One worker's share."""
        name = f"{Saved(stage, step, 0).name}/worker-{rank:05d}.safetensors"
        self._folder.write_bytes(name, save({key: t.contiguous() for key, t in tensors.items()}))

    def complete(self, stage: int, step: int, workers: int) -> None:
        """Marks a checkpoint all of whose shares are written, then removes what it makes superfluous."""
        saved = Saved(stage, step, workers)
        self._folder.write_json(f"{saved.name}/{MARKER}", {"stage": stage, "step": step, "workers": workers})
        for name in self._steps(stage):
            if name != f"{step:08d}":
                self._remove(stage, name)

    def read(self, saved: Saved) -> dict[str, dict[str, Tensor]]:
        """Every trained parameter's tensors (value and moments) by the parameter's name."""
        tensors: dict[str, dict[str, Tensor]] = {}
        for rank in range(saved.workers):
            name = f"{saved.name}/worker-{rank:05d}.safetensors"
            try:
                share = load(self._folder.read_bytes(name))
            except DataError:
                raise
            except Exception as error:
                raise DataError(
                    f"{self._folder.path(name)} cannot be read ({error}). Bring it back from a backup, or start "
                    "afresh in another output folder."
                ) from error
            for key, tensor in share.items():
                parameter, _, kind = key.rpartition("|")
                tensors.setdefault(parameter, {})[kind] = tensor
        return tensors

    def drop_incomplete(self, stage: int) -> None:
        """Removes what a killed run left half-written."""
        complete = {f"{saved.step:08d}" for saved in self._complete(stage)}
        for name in self._steps(stage):
            if name not in complete:
                self._remove(stage, name)

    def _complete(self, stage: int) -> list[Saved]:
        names = [name for name in self._folder.list_files(f"state/{stage}/") if name.endswith(f"/{MARKER}")]
        read = [self._folder.read_json(name) for name in sorted(names)]
        return [Saved(int(r["stage"]), int(r["step"]), int(r["workers"])) for r in read]

    def _steps(self, stage: int) -> list[str]:
        return sorted({name.split("/")[2] for name in self._folder.list_files(f"state/{stage}/")})

    def _remove(self, stage: int, step: str) -> None:
        """The marker first: what is half removed is not complete."""
        self._folder.remove(f"state/{stage}/{step}/{MARKER}")
        self._folder.remove_folder(f"state/{stage}/{step}")


def deal(state: Iterable[tuple[str, Mapping[str, Tensor]]], rank: int, workers: int) -> dict[str, Tensor]:
    """One worker's share of a state, parameter by parameter in turn; goes through all of it."""
    own: dict[str, Tensor] = {}
    for number, (name, tensors) in enumerate(state):
        if number % workers == rank:
            own |= {f"{name}|{kind}": tensor for kind, tensor in tensors.items()}
    return own


def save_state(
    store: StateStore,
    state: Iterable[tuple[str, Mapping[str, Tensor]]],
    *,
    stage: int,
    step: int,
    rank: int,
    workers: int,
    barrier: Callable[[], None],
) -> None:
    """Writes a checkpoint together with the other workers; on return it is complete on all of them."""
    store.write_share(stage, step, rank, deal(state, rank, workers))
    barrier()
    if rank == 0:
        store.complete(stage, step, workers)
    barrier()
