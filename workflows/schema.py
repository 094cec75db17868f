"""The Arrow schemas of every stored table, with their version. Readers refuse a version that they do not know.

Coordinates: `box_xyxy_px` is (left, top, right, bottom) in pixels of the full frame, origin at the top left corner of
the top left pixel, right and bottom exclusive. Times end in `_s` and are seconds from the start of the source video;
`recorded_at` is a moment on the clock, in UTC, null where nothing tells when the video was recorded. Masks are COCO
run-length encodings (column-major) of the full frame.
"""

import pyarrow as pa

from modeling.errors import DataError

SCHEMA_VERSION = 2
OLDER_READABLE = {"frames": {"1"}, "queries": {"1"}, "galleries": {"1"}}  # frames of version 1 lack `recorded_at` only
RECORDED_AT_TYPE = pa.timestamp("ms", tz="UTC")
EMBEDDING_TYPE = pa.float16()

RECORDED_AT = pa.field("recorded_at", RECORDED_AT_TYPE)
BOX = pa.list_(pa.float32())  # four numbers; not a fixed-size list, whose nulls Parquet readers do not get back
MASK_RLE = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.binary())])  # size is (height, width)

PERSON = pa.struct(
    [
        pa.field("person_id", pa.string(), nullable=False),  # "<frame_id>/<number of the person in the frame>"
        pa.field("box_xyxy_px", BOX, nullable=False),
        pa.field("score", pa.float32()),  # the detector's own scale
        pa.field("track_id", pa.string()),
        pa.field("identity", pa.string()),  # truth, if known
        pa.field("clothes_id", pa.string()),
        pa.field("mask_rle", MASK_RLE),
        pa.field("text", pa.string()),
    ]
)


def _versioned(name: str, fields: list[pa.Field]) -> pa.Schema:
    metadata = {"psreid.table": name, "psreid.schema_version": str(SCHEMA_VERSION)}
    return pa.schema(fields, metadata=metadata)


FRAMES = _versioned(
    "frames",
    [
        pa.field("frame_id", pa.string(), nullable=False),  # "camera/video#index"
        pa.field("camera_id", pa.string(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),  # of the source video, 0-based
        pa.field("timestamp_s", pa.float64()),
        RECORDED_AT,
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),  # "rgb" or "ir"
        pa.field("image", pa.binary()),  # JPEG
        pa.field("persons", pa.list_(PERSON), nullable=False),
    ],
)

QUERIES = _versioned(
    "queries",
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("image", pa.binary()),  # JPEG or PNG of the person's crop
        pa.field("text", pa.string()),
        pa.field("instruction", pa.string()),
        pa.field("task", pa.string()),
        pa.field("identity", pa.string()),  # truth, if known
        pa.field("camera_id", pa.string()),
        pa.field("frame_id", pa.string()),  # the frame the crop was cut from: never its own match
        pa.field("box_xyxy_px", BOX),  # where in that frame
        pa.field("instruction_image", pa.binary()),  # JPEG or PNG of clothes, where a picture is the instruction
        pa.field("clothes_id", pa.string()),  # truth: the clothes asked for, or worn
        pa.field("modality", pa.string()),  # of the crop: "rgb" or "ir"
    ],
)

CROPS = _versioned(
    "crops",
    [
        pa.field("person_id", pa.string(), nullable=False),
        pa.field("frame_id", pa.string(), nullable=False),
        pa.field("camera_id", pa.string(), nullable=False),
        pa.field("timestamp_s", pa.float64()),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("clothes_id", pa.string()),
        pa.field("box_xyxy_px", BOX, nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # JPEG of the person
        pa.field("text", pa.string()),  # what is seen in this picture
        pa.field("description", pa.string()),  # who the person is and wears, from attributes where they are known
    ],
)

WARDROBE = _versioned(
    "wardrobe",
    [
        pa.field("clothes_id", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("picture", pa.binary()),  # JPEG or PNG of the upper garment alone, as a shop shows it
        pa.field("attributes", pa.list_(pa.struct([("name", pa.string()), ("word", pa.string())]))),
    ],
)

ALL_QUERIES = "*"  # as the query_id of a gallery: every query has this gallery, without the frame it was cut from

GALLERIES = _versioned(
    "galleries",
    [
        pa.field("gallery", pa.string(), nullable=False),  # "TestG100"
        pa.field("query_id", pa.string(), nullable=False),  # or ALL_QUERIES
        pa.field("frame_ids", pa.list_(pa.string()), nullable=False),
    ],
)


def index_schema(dim: int) -> pa.Schema:
    """The index table for embeddings of `dim` numbers (float16, unit length)."""
    return _versioned(
        "index",
        [
            pa.field("frame_id", pa.string(), nullable=False),
            pa.field("person_id", pa.string(), nullable=False),
            pa.field("camera_id", pa.string(), nullable=False),
            pa.field("timestamp_s", pa.float64()),
            RECORDED_AT,
            pa.field("box_xyxy_px", BOX, nullable=False),
            pa.field("embedding", pa.list_(EMBEDDING_TYPE, dim), nullable=False),
            pa.field("frames_part", pa.string(), nullable=False),  # the file of the frames table that holds the frame
        ],
    )


SHORTLIST = _versioned(
    "shortlist",
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("frame_id", pa.string(), nullable=False),
        pa.field("frames_part", pa.string(), nullable=False),
        pa.field("person_id", pa.string()),  # the best person of the frame
        pa.field("recall_score", pa.float32()),  # cosine in [-1, 1]; null where recall was off
    ],
)

MATCHES = _versioned(
    "matches",
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("frame_id", pa.string(), nullable=False),
        pa.field("camera_id", pa.string(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("timestamp_s", pa.float64()),
        RECORDED_AT,
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # logit[SEG] - logit[REJ]
        pa.field("decision", pa.string(), nullable=False),  # "match" or "reject"
        pa.field("recall_score", pa.float32()),
        pa.field("mask_rle", MASK_RLE),  # null for a reject
        pa.field("box_xyxy_px", BOX),
        pa.field("frames_part", pa.string(), nullable=False),
        pa.field("rank", pa.int32()),  # 1 is the best of its query; null until ranked
    ],
)


def require_table(table_schema: pa.Schema, expected: pa.Schema, *, source: str) -> None:
    """Checks that a stored table is the expected one, in a version this code knows.

    Raises DataError naming the table, the version and every missing column.
    """
    metadata = {k.decode(): v.decode() for k, v in (table_schema.metadata or {}).items()}
    name = (expected.metadata or {})[b"psreid.table"].decode()
    found, version = metadata.get("psreid.table"), metadata.get("psreid.schema_version")
    if found is not None and found != name:
        raise DataError(f"{source} is a {found!r} table, but a {name!r} table is needed here. Give the right folder.")
    if version is not None and version not in {str(SCHEMA_VERSION), *OLDER_READABLE.get(name, ())}:
        raise DataError(
            f"{source} has schema version {version}, this psreid reads version {SCHEMA_VERSION}. "
            "Make it again with this version, or read it with the psreid that wrote it."
        )
    missing = [f.name for f in expected if not f.nullable and f.name not in table_schema.names]
    if missing:
        raise DataError(
            f"{source} lacks the column(s) {', '.join(missing)} of a {name} table; it has {table_schema.names}"
        )
