"""The training frames as Ray holds them: who is on which frame in memory, pictures in Ray's object store.

Ray Data reads the tables, part by part, into the object store, compressed as they are: every process of a node reads
them there without a copy, and what does not fit is spilled to disk. Only a light catalogue travels: one line a person.
Both depend on the tables alone, whatever the order in which parts arrive.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modeling.errors import DataError
from workflows.ledger import Ledger
from workflows.runner import quieten_ray_data
from workflows.storage import Folder
from workflows.train.samples import is_usable

COLUMNS = ["frame_id", "camera_id", "image", "persons"]
READ_CPUS = 0.5
BLOCKS_KEPT = 8  # per process; a block that is held cannot be spilled


@dataclass(frozen=True)
class Catalogue:
    """F frames with N usable persons of I identities, persons sorted by frame."""

    frame: NDArray[np.int32]
    """(N,) number of the person's frame."""
    identity: NDArray[np.int32]
    """(N,) number of the person's identity, in the order of names."""
    camera: NDArray[np.int32]
    names: tuple[str, ...]
    """(I,) "<number of the archive>/<identity>"."""
    frame_ids: tuple[str, ...]
    """(F,) "<number of the archive>/<frame_id>"."""
    place: NDArray[np.int32]
    """(F, 2) block of each frame, and its row there."""

    def persons_of(self, frame: int) -> NDArray[np.int32]:
        """Numbers of a frame's persons."""
        low, high = np.searchsorted(self.frame, [frame, frame + 1])
        return np.arange(low, high, dtype=np.int32)

    def sightings(self) -> list[NDArray[np.int32]]:
        """The persons of each identity."""
        order = np.argsort(self.identity, kind="stable").astype(np.int32)
        return np.split(order, np.searchsorted(self.identity[order], np.arange(1, len(self.names))))


@dataclass(frozen=True)
class FrameTables:
    """The catalogue and references to its blocks: what is sent to workers."""

    catalogue: Catalogue
    blocks: Sequence[Any]
    """ObjectRefs of Arrow tables."""
    archives: tuple[int, ...]
    """Number of the archive that each block is from."""


class FrameStore:
    """Rows of the frames, read from Ray's object store as they are asked for."""

    def __init__(self, tables: FrameTables) -> None:
        self.catalogue = tables.catalogue
        self._blocks, self._archives = tables.blocks, tables.archives
        self._held: OrderedDict[int, pa.Table] = OrderedDict()

    def row(self, frame: int) -> dict[str, Any]:
        """image, persons, camera_id, frame_id and archive of one frame."""
        block, row = (int(number) for number in self.catalogue.place[frame])
        found: dict[str, Any] = self._table(block).slice(row, 1).to_pylist()[0]
        return found | {"archive": self._archives[block]}

    def _table(self, block: int) -> pa.Table:
        import ray

        if block not in self._held:
            self._held[block] = ray.get(self._blocks[block])
            if len(self._held) > BLOCKS_KEPT:
                self._held.popitem(last=False)
        self._held.move_to_end(block)
        return self._held[block]


def read_frames(uris: Sequence[str]) -> FrameTables:
    """Reads every committed part of the frames folders through Ray Data.

    Raises DataError when no person can be learned from.
    """
    import ray
    import ray.data

    quieten_ray_data()
    blocks: list[Any] = []
    archives: list[int] = []
    for archive, uri in enumerate(uris):
        parts = [{"uri": uri, "part": part.name} for part in Ledger.read(Folder(uri)).parts()]
        if not parts:
            raise DataError(f"{uri} holds no frames. Give a frames folder that is finished.")
        rows = ray.data.from_items(parts, override_num_blocks=len(parts))
        read = rows.map_batches(_read_part, batch_size=1, batch_format="pandas", num_cpus=READ_CPUS)
        refs = read.materialize().to_arrow_refs()
        blocks += refs
        archives += [archive] * len(refs)
    listed = ray.get([_list_block.remote(block) for block in blocks])
    return FrameTables(make_catalogue(listed, archives), blocks, tuple(archives))


def make_catalogue(blocks: Sequence[Sequence[Mapping[str, Any]]], archives: Sequence[int]) -> Catalogue:
    """The catalogue of blocks of light rows: frame_id, camera_id, identities of the usable persons."""
    frames = sorted(
        (f"{archive}/{line['frame_id']}", block, row, f"{archive}/{line['camera_id']}", line["identities"])
        for block, (lines, archive) in enumerate(zip(blocks, archives, strict=True))
        for row, line in enumerate(lines)
        if line["identities"]
    )
    if not frames:
        raise DataError("the frames hold no person with an identity and a mask; give a frames table with truth")
    persons = [
        (number, f"{name.split('/')[0]}/{identity}", camera)
        for number, (name, _, _, camera, identities) in enumerate(frames)
        for identity in identities
    ]
    names = sorted({identity for _, identity, _ in persons})
    cameras = sorted({camera for _, _, camera in persons})
    number_of, camera_of = ({name: i for i, name in enumerate(known)} for known in (names, cameras))
    return Catalogue(
        frame=np.array([frame for frame, _, _ in persons], dtype=np.int32),
        identity=np.array([number_of[identity] for _, identity, _ in persons], dtype=np.int32),
        camera=np.array([camera_of[camera] for _, _, camera in persons], dtype=np.int32),
        names=tuple(names),
        frame_ids=tuple(frame[0] for frame in frames),
        place=np.array([[block, row] for _, block, row, _, _ in frames], dtype=np.int32),
    )


def list_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The light rows of a block."""
    rows = table.drop_columns(["image"]).to_pylist()
    return [
        {
            "frame_id": row["frame_id"],
            "camera_id": row["camera_id"],
            "identities": [person["identity"] for person in row["persons"] if is_usable(person)],
        }
        for row in rows
    ]


def _read_part(batch: Any) -> pa.Table:
    where = batch.iloc[0]
    return Folder(where["uri"]).read_table(where["part"], columns=COLUMNS)


class _ListBlock:
    """A Ray task that is declared when Ray is there."""

    def remote(self, block: Any) -> Any:
        import ray

        # "DEFAULT": inside a Tune trial a task would else have to fit into the trial's own placement group
        return ray.remote(num_cpus=READ_CPUS, scheduling_strategy="DEFAULT")(list_rows).remote(block)


_list_block = _ListBlock()
