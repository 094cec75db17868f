"""Broken files give what they hold and a reason for the rest; good frames are never lost with them."""

import random
from pathlib import Path

import av
import numpy as np
import pyarrow.compute as pc
import pytest

from tests.workflows.numbered_video import draw_number, read_number, write_video
from workflows.ingest.decode import DecodeFrames
from workflows.ingest.images import read_image
from workflows.ingest.payload import faulty_shard, first_frames, split_shard, video_shard
from workflows.ingest.sources import SourceFile
from workflows.ingest.split import cut_shards, sample_frames
from workflows.ingest.video_index import probe_video
from workflows.ledger import Shard
from workflows.schema import FRAMES
from workflows.stages import ShardBatch

NUM_FRAMES = 90
OPTIONS = {"g": "30", "bf": "3", "preset": "ultrafast", "x264-params": "b-adapt=0:bframes=3:scenecut=0"}


def plan(path: Path, shard_frames: int = 16) -> list[Shard]:
    file = SourceFile(str(path), "video", "cam", path.stem)
    probe = probe_video(str(path))
    shards = [faulty_shard(file, probe.faults)] if probe.faults else []
    if probe.index is not None:
        wanted = sample_frames(probe.index)
        cuts = cut_shards(probe.index, wanted, shard_frames=shard_frames, keep_gops_whole=False)
        shards += [video_shard(file, runs, content=probe.index.content) for runs in cuts]
    return shards


def decode(shards: list[Shard]) -> tuple[dict[str, int], dict[str, str]]:
    """({frame_id: number in the picture}, {row_id: reason}) of a decode stage over these shards."""
    stage = DecodeFrames()
    numbers, reasons = {}, {}
    for shard in shards:
        result = stage(ShardBatch(shard))
        assert result.table.schema.equals(FRAMES)
        for row in result.table.to_pylist():
            numbers[row["frame_id"]] = read_number(read_image(row["image"]).image_bgr)
        reasons |= {row.row_id: row.reason for row in result.quarantine}
    return numbers, reasons


def faststart_video(path: Path) -> Path:
    """An MP4 whose index stands at its beginning, so that it opens when its end is missing."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options=OPTIONS)
        stream.height, stream.width = draw_number(0).shape[:2]
        for number in range(NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_sound_video_gives_every_frame(tmp_path):
    numbers, reasons = decode(plan(write_video(tmp_path / "good.mp4", NUM_FRAMES, options=OPTIONS)))
    assert numbers == {f"cam/good#{k}": k for k in range(NUM_FRAMES)}
    assert reasons == {}


def test_a_truncated_mp4_gives_its_beginning_and_says_what_is_missing(tmp_path):
    whole = faststart_video(tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    numbers, reasons = decode(plan(path))
    assert 30 < len(numbers) < NUM_FRAMES
    assert all(number == int(frame_id.rpartition("#")[2]) for frame_id, number in numbers.items())
    assert reasons[str(path)] == "truncated"
    assert "promises 90 frames" in probe_video(str(path)).faults[0].detail


def test_a_truncated_matroska_file_says_so_too(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", NUM_FRAMES, options=OPTIONS).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    numbers, reasons = decode(plan(path))
    assert len(numbers) > 20
    assert all(number == int(frame_id.rpartition("#")[2]) for frame_id, number in numbers.items())
    assert reasons[str(path)] == "truncated"


def test_damage_in_the_middle_is_set_aside_up_to_the_next_keyframe(tmp_path):
    data = bytearray(faststart_video(tmp_path / "whole.mp4").read_bytes())
    noise = random.Random(0)
    middle = len(data) // 2
    for place in range(middle, middle + 2500):
        data[place] = noise.randrange(256)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(bytes(data))
    numbers, reasons = decode(plan(path))
    assert set(numbers) | set(reasons) == {f"cam/damaged#{k}" for k in range(NUM_FRAMES)}
    assert not set(numbers) & set(reasons)
    assert 0 < len(reasons) <= 60
    assert set(reasons.values()) <= {"damaged_frame", "not_decodable"}
    assert all(number == int(frame_id.rpartition("#")[2]) for frame_id, number in numbers.items())
    assert {f"cam/damaged#{k}" for k in (0, 29)} <= set(numbers)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"these are no pictures\n" * 500, "not_a_video"),
        (random.Random(1).randbytes(40_000), "not_a_video"),
    ],
)
def test_what_is_no_video_becomes_one_quarantined_row(tmp_path, content, reason):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert decode(plan(path)) == ({}, {str(path): reason})


def test_an_mp4_without_its_index_is_no_video(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", NUM_FRAMES, options=OPTIONS).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert decode(plan(path)) == ({}, {str(path): "not_a_video"})


def test_sound_alone_is_named_as_such(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for number in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert decode(plan(path)) == ({}, {str(path): "no_video_stream"})


def test_a_file_that_vanishes_after_planning_is_set_aside_frame_by_frame(tmp_path):
    path = write_video(tmp_path / "gone.mp4", 20, options=OPTIONS)
    shards = plan(path)
    path.unlink()
    numbers, reasons = decode(shards)
    assert numbers == {}
    assert reasons == {f"cam/gone#{k}": "not_decodable" for k in range(20)}


def test_a_stage_goes_on_after_a_frame_that_raises(tmp_path, monkeypatch):
    """What the runner does with a raising shard: one sub-shard per frame, called by its frame_id."""
    path = write_video(tmp_path / "good.mp4", 20, options=OPTIONS)
    (shard,) = plan(path, shard_frames=64)
    stage = DecodeFrames()
    encode = stage._video_columns

    def fail_at_seven(camera_id, picture):
        if read_number(picture.bgr) == 7:
            raise RuntimeError("poison")
        return encode(camera_id, picture)

    monkeypatch.setattr(stage, "_video_columns", fail_at_seven)
    with pytest.raises(RuntimeError):
        stage(ShardBatch(shard))
    numbers = {}
    for sub_shard in stage.plan_rows(shard):
        if sub_shard.shard_id == "cam/good#7":
            with pytest.raises(RuntimeError):
                stage(ShardBatch(sub_shard))
        else:
            (row,) = stage(ShardBatch(sub_shard)).table.to_pylist()
            numbers[row["frame_id"]] = read_number(read_image(row["image"]).image_bgr)
    assert numbers == {f"cam/good#{k}": k for k in range(20) if k != 7}


def test_parts_of_a_shard_are_named_by_their_frames(tmp_path):
    (shard,) = plan(write_video(tmp_path / "good.mp4", 20, options=OPTIONS), shard_frames=64)
    assert [part.shard_id for part in split_shard(shard)] == [f"cam/good#{k}" for k in range(20)]
    assert first_frames(shard, 3).rows_expected == 3
    table = DecodeFrames()(ShardBatch(first_frames(shard, 3))).table
    assert table["frame_index"].to_pylist() == [0, 1, 2]


def test_a_grey_picture_is_infrared_and_a_named_camera_always_is(tmp_path):
    def draw(number):
        light = np.full((64, 64, 3), 120 + number, np.uint8)
        light[20:40] = 30
        return light if number < 3 else np.stack([light[..., 0], light[..., 0] // 2, light[..., 0] // 3], axis=2)

    path = write_video(tmp_path / "night.mp4", 6, options={"g": "1"}, draw=draw)
    (shard,) = plan(path)
    modalities = DecodeFrames()(ShardBatch(shard)).table["modality"].to_pylist()
    assert modalities == ["ir"] * 3 + ["rgb"] * 3
    named = DecodeFrames(ir_cameras=["cam"])(ShardBatch(shard)).table
    assert pc.all(pc.equal(named["modality"], "ir")).as_py()
