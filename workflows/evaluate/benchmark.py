"""What a model is measured on: frames with truth, queries, and the galleries that pair them. Checked; no models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from modeling.errors import ConfigError, DataError
from workflows.evaluate.config import FLOOR_GALLERY, EvaluateConfig
from workflows.index.frames import frame_ids_of
from workflows.index.inputs import StepInput, open_step
from workflows.ledger import Ledger, make_shard_id, table_checksum
from workflows.schema import ALL_QUERIES, GALLERIES, QUERIES, require_table
from workflows.storage import Folder, split_uri

MOST_NAMED = 3  # ids listed in an error


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, narrowed to the galleries that are reported."""

    truth: StepInput
    """Frames with identities and masks."""
    shown: StepInput
    """Frames with the persons that the model is shown: the same, or a detector's."""
    queries: Mapping[str, Mapping[str, Any]]
    """query_id -> QUERIES row, of the queries that have a gallery."""
    galleries: Mapping[str, Mapping[str, Sequence[str]]]
    """gallery -> query_id -> its frames, without the query's own frame."""
    part_of: Mapping[str, str]
    """frame_id -> the part of `shown` that holds it, of the frames in some gallery."""
    digest: str
    """Changes with the queries or the galleries."""

    @property
    def frames_of(self) -> dict[str, list[str]]:
        """query_id -> the frames of all its galleries, each once, sorted."""
        union: dict[str, set[str]] = {query_id: set() for query_id in self.queries}
        for gallery in self.galleries.values():
            for query_id, frame_ids in gallery.items():
                union[query_id].update(frame_ids)
        return {query_id: sorted(frame_ids) for query_id, frame_ids in union.items()}


def open_benchmark(config: EvaluateConfig) -> Benchmark:
    """Opens and checks the tables; DataError or ConfigError says which is missing or contradicts another."""
    tables = _tables_folder(str(config.data))
    truth = open_step(tables.child("frames").uri, command="synth")
    shown = open_step(config.detections, command="ingest") if config.detections else truth
    queries_table = _read(tables.child("queries").uri, QUERIES)
    galleries_table = _read(tables.child("galleries").uri, GALLERIES)
    galleries = _chosen_galleries(galleries_table, _wanted(config), source=tables.child("galleries").uri)
    all_ids = queries_table["query_id"].to_pylist()
    galleries = {name: _for_each_query(gallery, all_ids) for name, gallery in galleries.items()}
    needed = {query_id for gallery in galleries.values() for query_id in gallery}
    queries = {row["query_id"]: row for row in queries_table.to_pylist() if row["query_id"] in needed}
    _check_queries(queries, needed, source=tables.child("queries").uri)
    galleries = {
        name: {query_id: _without(ids, queries[query_id]["frame_id"]) for query_id, ids in gallery.items()}
        for name, gallery in galleries.items()
    }
    wanted = {frame_id for gallery in galleries.values() for ids in gallery.values() for frame_id in ids}
    digest = make_shard_id(table_checksum(queries_table), table_checksum(galleries_table))
    return Benchmark(truth, shown, queries, galleries, _parts_of_frames(shown, wanted), digest)


def _tables_folder(uri: str) -> Folder:
    """DATA itself or its `tables`, whichever holds the frames."""
    folder = Folder(uri)
    for candidate in (folder.child("tables"), folder):
        if candidate.exists("frames/step.json"):
            return candidate
    raise DataError(
        f"{folder.uri} is no benchmark: neither tables/frames nor frames below it is a frames folder. Give a folder "
        "with the tables frames, queries and galleries, such as the OUT of `psreid synth`."
    )


def _wanted(config: EvaluateConfig) -> Sequence[str]:
    if config.ranking == "histogram" and not config.gallery:
        return (FLOOR_GALLERY,)
    return config.gallery


def _read(uri: str, schema: pa.Schema) -> pa.Table:
    """A table from a Parquet file, a folder of them, or a step folder, with every column of the schema."""
    folder, name = split_uri(uri)
    if folder.exists(f"{name}.parquet"):
        files = [(folder, f"{name}.parquet")]
    elif Folder(uri).exists("step.json"):
        files = [(Folder(uri), part.name) for part in Ledger.read(Folder(uri)).parts()]
    else:
        files = [(Folder(uri), file) for file in Folder(uri).list_files() if file.endswith(".parquet")]
    if not files:
        raise DataError(f"there is no table at {uri}: neither a Parquet file nor a folder with some. Check the path.")
    tables = []
    for place, file in files:
        table = place.read_table(file)
        require_table(table.schema, schema, source=place.path(file))
        missing = [field for field in schema if field.name not in table.column_names]
        for field in missing:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        tables.append(table.select(schema.names).cast(schema))
    return pa.concat_tables(tables)


def _chosen_galleries(table: pa.Table, wanted: Sequence[str], *, source: str) -> dict[str, dict[str, list[str]]]:
    galleries: dict[str, dict[str, list[str]]] = {}
    for row in table.to_pylist():
        of_query = galleries.setdefault(row["gallery"], {})
        if row["query_id"] in of_query:
            raise DataError(f"{source} has gallery {row['gallery']} twice for query {row['query_id']!r}; once is right")
        of_query[row["query_id"]] = row["frame_ids"]
    if not galleries:
        raise DataError(f"{source} holds no gallery, so there is nothing to measure")
    unknown = [name for name in wanted if name not in galleries]
    if unknown:
        raise ConfigError(f"there is no gallery {', '.join(unknown)} in {source}; it holds {', '.join(galleries)}")
    return {name: galleries[name] for name in (wanted or galleries)}


def _for_each_query(gallery: Mapping[str, list[str]], query_ids: Sequence[str]) -> dict[str, list[str]]:
    """A gallery given once for all queries, as each query's own (one list, shared)."""
    shared = gallery.get(ALL_QUERIES)
    own = {query_id: frame_ids for query_id, frame_ids in gallery.items() if query_id != ALL_QUERIES}
    return own if shared is None else dict.fromkeys(query_ids, shared) | own


def _check_queries(queries: Mapping[str, Mapping[str, Any]], needed: set[str], *, source: str) -> None:
    missing = sorted(needed - queries.keys())
    if missing:
        raise DataError(f"{_listed(missing)} of the galleries {_have(missing)} no row in {source}")
    nameless = sorted(query_id for query_id, row in queries.items() if not row["identity"])
    if nameless:
        raise DataError(
            f"{_listed(nameless)} in {source} {_have(nameless)} no identity, so no answer is right or wrong"
        )


def _parts_of_frames(shown: StepInput, wanted: set[str]) -> dict[str, str]:
    """Where each frame lies; DataError when one is nowhere."""
    part_of = {
        frame_id: part.name
        for part in shown.parts
        for frame_id in frame_ids_of(shown.folder, part.name)
        if frame_id in wanted
    }
    missing = sorted(wanted - part_of.keys())
    if missing:
        raise DataError(
            f"{len(missing)} of the galleries' {len(wanted)} frames are not in {shown.folder.uri}, the first "
            f"{', '.join(map(repr, missing[:MOST_NAMED]))}. Give the frames that the galleries were made of."
        )
    return part_of


def _without(frame_ids: Sequence[str], own_frame: str | None) -> list[str]:
    """The frames but the one that the query was cut from, each once, in order."""
    return [frame_id for frame_id in dict.fromkeys(frame_ids) if frame_id != own_frame]


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return f"{'query' if len(ids) == 1 else 'queries'} {', '.join(map(repr, ids[:MOST_NAMED]))}{more}"


def _have(ids: Sequence[str]) -> str:
    return "has" if len(ids) == 1 else "have"
