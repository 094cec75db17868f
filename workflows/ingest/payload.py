"""What a shard of an ingest says it is: frames of one video, some images, or files that cannot be read.

The payload travels as JSON with the shard and holds all that decoding needs, so a worker looks nothing up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflows.ingest.sources import SourceFile
from workflows.ingest.split import Run, SeekPoint, WantedFrame, split_rows
from workflows.ingest.video_index import Fault
from workflows.ledger import Shard, make_shard_id

DECODER_VERSION = 1  # raise it when the same file would give other frames


@dataclass(frozen=True)
class VideoShard:
    """Frames of one video."""

    uri: str
    camera_id: str
    stem: str
    runs: Sequence[Run]
    recorded_at: str | None = None
    """When the first frame was recorded, ISO 8601 in UTC."""

    def frame_id(self, frame_index: int) -> str:
        return f"{self.camera_id}/{self.stem}#{frame_index}"


@dataclass(frozen=True)
class ImageShard:
    """Image files, each one frame with index 0."""

    files: Sequence[SourceFile]


@dataclass(frozen=True)
class FaultyShard:
    """A file that gives no frames, or fewer than it promises, and why."""

    uri: str
    faults: Sequence[Fault]


Content = VideoShard | ImageShard | FaultyShard


def video_shard(file: SourceFile, runs: Sequence[Run], *, content: str) -> Shard:
    """A shard whose id depends on the file's content and name and on its frames, not on where the file lies."""
    indices = [frame.index for run in runs for frame in run.frames]
    payload = {
        "kind": "video",
        "uri": file.uri,
        "camera_id": file.camera_id,
        "stem": file.stem,
        "recorded_at": file.recorded_at,
        "runs": [
            {
                "seek": [run.seek.index, run.seek.pts, run.seek.dts] if run.seek else None,
                "frames": [[frame.index, frame.pts, frame.timestamp_s] for frame in run.frames],
            }
            for run in runs
        ],
    }
    shard_id = make_shard_id("video", DECODER_VERSION, content, file.camera_id, file.stem, file.recorded_at, indices)
    return Shard(shard_id, payload, rows_expected=len(indices))


def image_shard(files: Sequence[SourceFile]) -> Shard:
    names = [[file.uri, file.camera_id, file.stem, file.recorded_at] for file in files]
    identities = [file.identity for file in files]
    payload = {"kind": "images", "files": names}
    return Shard(make_shard_id("images", DECODER_VERSION, names, identities), payload, rows_expected=len(files))


def faulty_shard(file: SourceFile, faults: Sequence[Fault]) -> Shard:
    listed = [[fault.reason, fault.detail] for fault in faults]
    payload = {"kind": "faulty", "uri": file.uri, "faults": listed}
    return Shard(make_shard_id("faulty", DECODER_VERSION, file.uri, file.identity, listed), payload, rows_expected=0)


def read_payload(payload: Mapping[str, Any]) -> Content:
    """What the payload of a shard says."""
    if payload["kind"] == "faulty":
        return FaultyShard(payload["uri"], [Fault(reason, detail) for reason, detail in payload["faults"]])
    if payload["kind"] == "images":
        return ImageShard(
            [SourceFile(uri, "image", camera, stem, recorded_at=at) for uri, camera, stem, at in payload["files"]]
        )
    runs = [
        Run(SeekPoint(*run["seek"]) if run["seek"] else None, tuple(WantedFrame(*frame) for frame in run["frames"]))
        for run in payload["runs"]
    ]
    return VideoShard(payload["uri"], payload["camera_id"], payload["stem"], runs, payload["recorded_at"])


def split_shard(shard: Shard) -> list[Shard]:
    """One sub-shard per frame, called by its frame_id; a faulty file stays whole."""
    content = read_payload(shard.payload)
    if isinstance(content, ImageShard):
        return [Shard(file.frame_id(0), image_shard([file]).payload, 1) for file in content.files]
    if isinstance(content, VideoShard):
        file = _file_of(content)
        return [
            Shard(file.frame_id(run.frames[0].index), video_shard(file, [run], content="").payload, 1)
            for run in split_rows(content.runs)
        ]
    return [shard]


def first_frames(shard: Shard, count: int) -> Shard:
    """The first `count` frames of a shard of frames, as a shard."""
    content = read_payload(shard.payload)
    if isinstance(content, ImageShard):
        return image_shard(content.files[:count])
    assert isinstance(content, VideoShard)
    runs = []
    for run in content.runs:
        if count > 0:
            runs.append(Run(run.seek, run.frames[:count]))
            count -= len(runs[-1].frames)
    return video_shard(_file_of(content), runs, content=shard.shard_id)


def without_files(shard: Shard, lost: Mapping[str, Fault]) -> list[Shard]:
    """The shard without the files that `lost` names, and one faulty shard for each of those."""
    content = read_payload(shard.payload)
    if isinstance(content, FaultyShard):
        return [shard]
    files = content.files if isinstance(content, ImageShard) else [_file_of(content)]
    faulty = [faulty_shard(file, [lost[file.uri]]) for file in files if file.uri in lost]
    kept = [file for file in files if file.uri not in lost]
    if not faulty or not kept:
        return faulty or [shard]
    return [image_shard(kept), *faulty]


def files_of(shard: Shard) -> list[str]:
    """URIs of the files that a shard is of."""
    content = read_payload(shard.payload)
    return [file.uri for file in content.files] if isinstance(content, ImageShard) else [content.uri]


def _file_of(video: VideoShard) -> SourceFile:
    return SourceFile(video.uri, "video", video.camera_id, video.stem, recorded_at=video.recorded_at)
