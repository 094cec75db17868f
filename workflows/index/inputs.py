"""The finished output of an earlier step, as input of the next: checked, and named by its content."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace

from modeling.errors import DataError
from workflows.ledger import Ledger, Manifest, PartInfo, StepIdentity
from workflows.storage import JSON, Folder


@dataclass(frozen=True)
class StepInput:
    """A finished step folder."""

    folder: Folder
    step: StepIdentity
    manifest: Manifest

    @property
    def parts(self) -> Sequence[PartInfo]:
        """The committed parts that hold rows, in order of name."""
        return [part for part in sorted(self.manifest.parts, key=lambda part: part.name) if part.rows]

    @property
    def digest(self) -> str:
        """16 hex digits that change with the step's settings, its own inputs or its parts."""
        parts = [[part.shard_id, part.rows] for part in sorted(self.manifest.parts, key=lambda part: part.name)]
        return _hash([asdict(self.step), parts])

    @property
    def settings_digest(self) -> str:
        """16 hex digits that change with the step's settings, and stay while it grows."""
        return _hash(asdict(self.step))

    def restricted(self, shard_ids: Collection[str]) -> "StepInput":
        """The same step as if it had only the parts of these shards."""
        parts = [part for part in self.manifest.parts if part.shard_id in shard_ids]
        return replace(self, manifest=replace(self.manifest, parts=parts, rows=sum(part.rows for part in parts)))


def _hash(value: JSON) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def open_step(uri: str, *, command: str) -> StepInput:
    """The output of a finished step; `command` is the psreid command that makes such a folder.

    Raises DataError when there is no step, or when it was not run to its end.
    """
    folder = Folder(uri)
    ledger = Ledger.read(folder)
    manifest = ledger.manifest
    if manifest is None:
        raise DataError(
            f"{folder.uri} is not finished: some of its shards are still missing. Run the `psreid {command}` that "
            "writes it once more (it continues where it stopped), then this command."
        )
    return StepInput(folder, ledger.identity, manifest)
