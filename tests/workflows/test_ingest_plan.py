"""Sampling, cutting and planning: who decodes which frames, and what a rerun has to read again."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workflows.ingest.plan as plan_module
from modeling.errors import ConfigError
from tests.workflows.numbered_video import write_video
from workflows.config import load_config
from workflows.ingest.config import IngestConfig
from workflows.ingest.payload import VideoShard, read_payload
from workflows.ingest.plan import keep_plan, make_plan
from workflows.ingest.split import cut_shards, sample_frames
from workflows.ingest.video_index import VideoIndex
from workflows.progress import Progress
from workflows.storage import Folder

OPTIONS = {"g": "10", "preset": "ultrafast"}


def make_index(num_frames: int, *, gop: int, rate: int = 25) -> VideoIndex:
    pts = np.arange(num_frames, dtype=np.int64) * 100
    keys = np.arange(0, num_frames, gop, dtype=np.int64)
    return VideoIndex(
        num_frames=num_frames,
        pts=pts,
        key_index=keys,
        key_pts=pts[keys],
        key_dts=pts[keys] - 200,
        time_base=Fraction(1, 100 * rate),
        frame_rate=Fraction(rate),
        content="content",
    )


def cut(index: VideoIndex, *, shard_frames: int = 64, keep_gops_whole: bool = True, every: int = 1) -> list[list[int]]:
    wanted = sample_frames(index, every=every)
    shards = cut_shards(index, wanted, shard_frames=shard_frames, keep_gops_whole=keep_gops_whole)
    return [[frame.index for run in shard for frame in run.frames] for shard in shards]


def test_short_gops_fill_a_shard_and_cuts_fall_on_keyframes():
    shards = cut(make_index(200, gop=10))
    assert [len(shard) for shard in shards] == [60, 60, 60, 20]
    assert all(shard[0] % 10 == 0 for shard in shards)


def test_a_long_gop_stays_whole_or_is_cut_as_told():
    assert [len(shard) for shard in cut(make_index(600, gop=250))] == [250, 250, 100]
    assert [len(shard) for shard in cut(make_index(250, gop=250), keep_gops_whole=False)] == [63, 63, 62, 62]
    assert [len(shard) for shard in cut(make_index(1000, gop=1000))] == [250] * 4


@settings(max_examples=60, deadline=None)
@given(
    num_frames=st.integers(1, 400),
    gop=st.integers(1, 120),
    shard_frames=st.integers(1, 80),
    every=st.integers(1, 50),
    keep_gops_whole=st.booleans(),
)
def test_shards_hold_every_wanted_frame_once_in_order(num_frames, gop, shard_frames, every, keep_gops_whole):
    shards = cut(
        make_index(num_frames, gop=gop), shard_frames=shard_frames, keep_gops_whole=keep_gops_whole, every=every
    )
    assert [index for shard in shards for index in shard] == list(range(0, num_frames, every))
    assert all(0 < len(shard) <= 4 * shard_frames for shard in shards)


@settings(max_examples=60, deadline=None)
@given(num_frames=st.integers(1, 300), gop=st.integers(1, 90), every=st.integers(1, 40))
def test_a_run_starts_at_the_last_keyframe_before_its_first_frame(num_frames, gop, every):
    index = make_index(num_frames, gop=gop)
    for shard in cut_shards(index, sample_frames(index, every=every), shard_frames=16, keep_gops_whole=True):
        for run in shard:
            assert run.seek.index == run.frames[0].index // gop * gop
            assert (run.seek.pts, run.seek.dts) == (run.seek.index * 100, run.seek.index * 100 - 200)
            assert all(frame.pts == frame.index * 100 for frame in run.frames)


def test_sampling_by_rate():
    index = make_index(100, gop=10, rate=25)
    assert sample_frames(index, fps=Fraction(25)).tolist() == list(range(100))
    assert sample_frames(index, fps=Fraction(60)).tolist() == list(range(100))
    assert sample_frames(index, fps=Fraction(5)).tolist() == list(range(0, 100, 5))
    assert sample_frames(index, fps=Fraction(1, 2)).tolist() == [0, 50]
    assert len(sample_frames(index, fps=Fraction(10))) == 40


def test_sampling_at_the_videos_own_rate_survives_times_in_milliseconds():
    times = np.array([round(k * 1000 / 30) for k in range(300)], np.int64)
    index = make_index(300, gop=10)
    index = VideoIndex(**{**vars(index), "pts": times, "time_base": Fraction(1, 1000)})
    assert len(sample_frames(index, fps=Fraction(30))) == 300
    assert len(sample_frames(index, fps=Fraction(10))) == 100


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "videos" / f"{name}.mp4", 30, options=OPTIONS)
    return tmp_path


def config(archive, **changes) -> IngestConfig:
    settings = {"sources": [str(archive / "videos")], "out": str(archive / "out"), "detector": {"name": "none"}}
    return IngestConfig.model_validate(settings | changes)


def kept_plan(settings: IngestConfig, out: Folder) -> plan_module.IngestPlan:
    plan = make_plan(settings, Progress(), out=out)
    keep_plan(plan, out)
    return plan


def test_a_plan_is_kept_and_read_back_without_opening_a_video(archive, monkeypatch):
    out = Folder(str(archive / "out"))
    first = kept_plan(config(archive), out)
    assert (first.num_videos, first.num_frames, first.num_faulty, first.num_new_files) == (2, 60, 0, 2)
    monkeypatch.setattr(plan_module, "probe_video", lambda uri: pytest.fail(f"{uri} was read again"))
    again = kept_plan(config(archive), out)
    assert [json.dumps(shard.payload) for shard in again.shards] == [
        json.dumps(shard.payload) for shard in first.shards
    ]
    assert [shard.shard_id for shard in again.shards] == [shard.shard_id for shard in first.shards]
    assert again.num_new_files == 0
    assert len(out.list_files("plan/files-")) == 1


def test_another_sampling_gives_another_plan(archive):
    assert make_plan(config(archive, every=2), Progress()).num_frames == 30


def test_shard_ids_follow_the_content_not_the_place(archive):
    first = make_plan(config(archive), Progress())
    (archive / "videos").rename(archive / "moved")
    moved = make_plan(config(archive, sources=[str(archive / "moved")]), Progress())
    assert [shard.shard_id for shard in moved.shards] == [shard.shard_id for shard in first.shards]
    assert {read_payload(shard.payload).uri for shard in moved.shards} != {
        read_payload(shard.payload).uri for shard in first.shards
    }


def test_a_payload_says_the_same_after_json(archive):
    for shard in make_plan(config(archive, every=7), Progress()).shards:
        content = read_payload(shard.payload)
        assert isinstance(content, VideoShard)
        assert read_payload(json.loads(json.dumps(shard.payload))) == content


def test_both_samplings_at_once_are_refused():
    with pytest.raises(ConfigError, match="not both"):
        load_config(IngestConfig, None, {"sources": ["a"], "out": "b", "every": 2, "fps": 1.0})


def test_every_setting_is_described():
    assert [name for name, field in IngestConfig.model_fields.items() if not field.description] == []
