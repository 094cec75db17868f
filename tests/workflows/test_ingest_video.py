"""Frame k of the table is frame k of the video: proved by frames that carry their own number."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.workflows.numbered_video import HEIGHT, WIDTH, read_number, write_video
from workflows.ingest.split import Run, cut_shards, sample_frames
from workflows.ingest.video_index import VideoIndex, probe_video
from workflows.ingest.video_picture import upright
from workflows.ingest.video_reader import VideoReader

NUM_FRAMES = 90
LONG_GOP = {"g": "40", "bf": "3", "preset": "ultrafast", "x264-params": "b-adapt=0:bframes=3:scenecut=0"}
OPEN_GOP = {"preset": "ultrafast", "x264-params": "open-gop=1:keyint=25:min-keyint=25:bframes=3:scenecut=0:b-adapt=0"}
ENDLESS_GOP = {"preset": "ultrafast", "x264-params": "keyint=infinite:scenecut=0:bframes=3:b-adapt=0"}


def index_of(path: Path) -> VideoIndex:
    probe = probe_video(str(path))
    assert probe.faults == []
    assert probe.index is not None
    return probe.index


def shards_of(index: VideoIndex, **sampling) -> list[tuple[Run, ...]]:
    return cut_shards(index, sample_frames(index, **sampling), shard_frames=16, keep_gops_whole=False)


def read_numbers(reader: VideoReader, shard: tuple[Run, ...]) -> list[tuple[int, int]]:
    """(index asked for, number in the picture) of every frame of a shard."""
    frames = [frame for run in shard for frame in reader.read(run)]
    return [(frame.wanted.index, read_number(frame.picture.bgr)) for frame in frames]


@pytest.mark.parametrize(
    ("name", "arguments", "is_counted"),
    [
        ("long_gop.mp4", {"options": LONG_GOP}, False),
        ("long_gop.mkv", {"options": LONG_GOP}, False),
        ("long_gop.ts", {"options": LONG_GOP}, False),
        ("open_gop.mp4", {"options": OPEN_GOP}, False),
        ("open_gop.ts", {"options": OPEN_GOP}, False),
        ("endless_gop.mp4", {"options": ENDLESS_GOP}, False),
        ("intra.mp4", {"options": {"g": "1", "preset": "ultrafast"}}, False),
        ("no_pts.avi", {"options": LONG_GOP}, True),
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"g": "40", "b": "2000000"}}, False),
        ("raw.h264", {"options": LONG_GOP, "container_format": "h264"}, True),
        ("mpeg2.mpg", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "3000000"}}, False),
    ],
)
def test_every_frame_is_the_one_its_index_says(tmp_path, name, arguments, is_counted):
    path = write_video(tmp_path / name, NUM_FRAMES, **arguments)
    index = index_of(path)
    assert (index.num_frames, index.is_counted) == (NUM_FRAMES, is_counted)
    shards = shards_of(index)
    assert len(shards) >= 5
    expected = [(number, number) for number in range(NUM_FRAMES)]

    with VideoReader(str(path)) as reader:  # one worker, in order: goes on from shard to shard
        assert [pair for shard in shards for pair in read_numbers(reader, shard)] == expected
    shuffled = list(shards)
    random.Random(0).shuffle(shuffled)
    with VideoReader(str(path)) as reader:  # one worker, any order: seeks
        assert sorted(pair for shard in shuffled for pair in read_numbers(reader, shard)) == expected
    last = read_numbers(VideoReader(str(path)), shards[-1])  # another worker, only this shard
    assert last == expected[-len(last) :]


def test_variable_frame_rate_keeps_index_and_time(tmp_path):
    steps = np.random.default_rng(0).choice([10, 33, 40, 400], NUM_FRAMES)
    times_ms = np.concatenate([[0], np.cumsum(steps)[:-1]]).tolist()
    path = write_video(tmp_path / "vfr.mkv", NUM_FRAMES, options=LONG_GOP, pts=times_ms, time_base=Fraction(1, 1000))
    index = index_of(path)
    frames = [frame for shard in shards_of(index) for run in shard for frame in run.frames]
    assert [frame.timestamp_s for frame in frames] == pytest.approx([time / 1000 for time in times_ms])
    reader = VideoReader(str(path))
    assert all(asked == got for shard in shards_of(index) for asked, got in read_numbers(reader, shard))

    chosen = [frame.index for shard in shards_of(index, fps=Fraction(5)) for run in shard for frame in run.frames]
    slots = [int((time + 1) // 200) for time in times_ms]
    assert chosen == [k for k in range(NUM_FRAMES) if k == 0 or slots[k] > slots[k - 1]]


def test_times_start_at_zero_where_the_container_starts_later(tmp_path):
    late = [5_000 + 40 * number for number in range(30)]
    path = write_video(tmp_path / "late.mkv", 30, options=LONG_GOP, pts=late, time_base=Fraction(1, 1000))
    index = index_of(path)
    assert [index.timestamp_s(k) for k in (0, 1, 29)] == pytest.approx([0.0, 0.04, 1.16])


def test_sparse_sampling_leaves_whole_gops_out(tmp_path):
    path = write_video(tmp_path / "short_gop.mp4", NUM_FRAMES, options={**LONG_GOP, "g": "10"})
    index = index_of(path)
    (shard,) = shards_of(index, every=30)
    assert [(run.seek.index, [frame.index for frame in run.frames]) for run in shard] == [
        (0, [0]),
        (30, [30]),
        (60, [60]),
    ]
    assert read_numbers(VideoReader(str(path)), shard) == [(0, 0), (30, 30), (60, 60)]


def test_skipping_unwanted_frames_changes_no_pixel(tmp_path):
    path = write_video(tmp_path / "long_gop.mp4", NUM_FRAMES, options=LONG_GOP)
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    reader = VideoReader(str(path))
    for shard in shards_of(index_of(path), every=7):
        for run in shard:
            for frame in reader.read(run):
                np.testing.assert_array_equal(frame.picture.bgr, plain[frame.wanted.index])


def test_a_recording_that_begins_in_mid_gop_counts_from_its_first_decodable_frame(tmp_path):
    whole = write_video(tmp_path / "whole.ts", NUM_FRAMES, options=OPEN_GOP).read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(whole[188 * (len(whole) // 188 // 3) :])
    with av.open(str(path)) as container:
        plain = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    index = index_of(path)
    numbers = [number for shard in shards_of(index) for _, number in read_numbers(VideoReader(str(path)), shard)]
    assert 0 < len(plain) < NUM_FRAMES
    assert numbers == plain


def corners(image_bgr: np.ndarray) -> str:
    """The colours of the four corners, clockwise from the top left: R, G, B or W."""
    colours = {"B": (250, 20, 20), "G": (20, 250, 20), "R": (20, 20, 250), "W": (250, 250, 250)}
    places = [(8, 8), (8, -8), (-8, -8), (-8, 8)]
    return "".join(
        min(colours, key=lambda c: np.abs(image_bgr[y, x].astype(int) - colours[c]).sum()) for y, x in places
    )


def draw_corners(_: int) -> np.ndarray:
    """64 x 96: red and green above, blue and white below; clockwise RGWB."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[:32, 48:] = (250, 20, 20), (20, 250, 20)
    image[32:, :48], image[32:, 48:] = (20, 20, 250), (250, 250, 250)
    return image


@pytest.mark.parametrize(
    ("turn", "expected", "shape"),
    [
        ({"degrees": 90}, "GWBR", (96, 64, 3)),
        ({"degrees": -90}, "BRGW", (96, 64, 3)),
        ({"degrees": 180}, "WBRG", (64, 96, 3)),
        ({"degrees": 0, "hflip": True}, "GRBW", (64, 96, 3)),
        ({"degrees": 0, "vflip": True}, "BWGR", (64, 96, 3)),
    ],
)
def test_frames_are_upright(tmp_path, turn, expected, shape):
    path = write_video(
        tmp_path / "turned.mp4", 3, draw=draw_corners, prepare=lambda stream: stream.set_display_rotation(**turn)
    )
    (shard,) = shards_of(index_of(path))
    image = next(VideoReader(str(path)).read(shard[0])).picture.bgr
    assert (corners(image), image.shape) == (expected, shape)


def test_no_matrix_entry_leaves_a_picture_alone():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    identity = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], np.int32)
    np.testing.assert_array_equal(upright(image, identity), image)


def test_odd_sizes_and_gray_videos_decode(tmp_path):
    gray = write_video(
        tmp_path / "gray.mkv",
        5,
        codec="ffv1",
        draw=lambda n: np.full((HEIGHT - 1, WIDTH + 1, 3), 40 * n, np.uint8),
        prepare=lambda stream: setattr(stream, "pix_fmt", "gray"),
    )
    (shard,) = shards_of(index_of(gray))
    images = [frame.picture.bgr for frame in VideoReader(str(gray)).read(shard[0])]
    assert [image.shape for image in images] == [(HEIGHT - 1, WIDTH + 1, 3)] * 5
    assert [int(image.mean()) for image in images] == [0, 40, 80, 120, 160]
