"""Makes small synthetic archives for tests, in this process and without Ray."""

from collections.abc import Iterable
from typing import Any

from workflows.archive.synthetic.config import SynthConfig
from workflows.archive.synthetic.step import finish_archive, synth_identity
from workflows.archive.synthetic.stretch import FilmStretch, plan_stretches
from workflows.ledger import Ledger, Shard
from workflows.stages import ShardBatch
from workflows.storage import Folder

SMALL: dict[str, Any] = {
    "seed": 3, "identities": 8, "cameras": 3, "frames": 60, "fps": 1.0, "width": 320, "height": 180, "density": 2.5,
    "stretch_frames": 16,
}  # fmt: skip


def make_archive(out: str, *, reverse: bool = False, **changes: Any) -> Folder:
    """A finished archive in `out`; `reverse` films the stretches in the opposite order."""
    config = SynthConfig(out=out, **(SMALL | changes))
    shards = plan_stretches(config)
    folder = Folder(out)
    ledger = Ledger.open(folder.child("tables", "frames"), synth_identity(config))
    film = FilmStretch(config.model_dump())
    for shard in _ordered(shards, reverse):
        batch = film(ShardBatch(shard))
        ledger.commit(shard, batch.table, drops={}, quarantine=[], seconds=0.0)
    ledger.finish(shards)
    finish_archive(config, folder, shards)
    return folder


def _ordered(shards: list[Shard], reverse: bool) -> Iterable[Shard]:
    return reversed(shards) if reverse else shards
