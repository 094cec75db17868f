"""Feature tables as arrays for scoring."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modeling.metrics.reid import ReidLabels
from workflows.evaluate_reid.encode import LABELS
from workflows.evaluate_reid.places import Side


def read_side(table: pa.Table) -> Side:
    """The rows of one features part, or of the queries."""
    names = [field.name for field in table.schema if pa.types.is_fixed_size_list(field.type)]
    vectors = {name: _vectors(table[name]) for name in names}
    return Side(
        labels=ReidLabels(*(_names(table[name]) for name in LABELS)),
        features={name: vectors[name].astype(np.float16) for name in names if name.startswith("embedding")},
        instructions={name: vectors[name] for name in names if not name.startswith("embedding")},
    )


def join_sides(sides: Sequence[Side]) -> Side:
    """Pieces of a gallery as a whole, in their order."""
    labels = ReidLabels(
        *(
            np.concatenate([getattr(side.labels, name) for side in sides])
            for name in ("identities", "cameras", "clothes", "modalities")
        )
    )
    features = {name: np.concatenate([side.features[name] for side in sides]) for name in sides[0].features}
    instructions = {name: np.concatenate([side.instructions[name] for side in sides]) for name in sides[0].instructions}
    return Side(labels, features, instructions)


def _names(column: pa.ChunkedArray) -> NDArray[np.str_]:
    return np.array([value or "" for value in column.to_pylist()], dtype=str)


def _vectors(column: pa.ChunkedArray) -> NDArray[np.floating]:
    width = column.type.list_size
    flat = pa.concat_arrays([chunk.flatten() for chunk in column.chunks]) if column.num_chunks else pa.array([])
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, width)
