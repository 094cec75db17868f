"""A whole synthetic archive: videos, tables and truth agree, and the seed decides all of it."""

import io
import json
from collections import defaultdict
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from modeling.regions import rle_to_mask
from tests.workflows.synthetic_archive import SMALL, make_archive
from workflows.archive.synthetic.benchmark import MOST_OWN_ALONE, MOST_POSITIVES
from workflows.archive.synthetic.config import SynthConfig
from workflows.archive.synthetic.preview import paint_preview
from workflows.archive.synthetic.step import plan_synth, run_synth
from workflows.archive.synthetic.video import decode_stretch, encode_stretch, join_stretches
from workflows.ingest.sources import list_sources
from workflows.progress import Progress
from workflows.schema import FRAMES, GALLERIES, QUERIES, require_table
from workflows.storage import Folder

Rows = list[dict]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return make_archive(str(tmp_path_factory.mktemp("archive")))


@pytest.fixture(scope="module")
def frames(archive: Folder) -> Rows:
    parts = sorted(Path(archive.uri, "tables", "frames").glob("part-*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return sorted(rows, key=lambda row: (row["camera_id"], row["frame_index"]))


@pytest.fixture(scope="module")
def queries(archive: Folder) -> Rows:
    return archive.read_table("tables/queries/queries.parquet").to_pylist()


@pytest.fixture(scope="module")
def galleries(archive: Folder) -> Rows:
    return archive.read_table("tables/galleries/galleries.parquet").to_pylist()


def test_tables_have_their_schemas(archive: Folder) -> None:
    part = next(Path(archive.uri, "tables", "frames").glob("part-*.parquet"))
    for path, schema in (
        (part, FRAMES),
        (archive.path("tables/queries/queries.parquet"), QUERIES),
        (archive.path("tables/galleries/galleries.parquet"), GALLERIES),
    ):
        stored = pq.read_schema(path)
        require_table(stored, schema, source=str(path))
        assert stored.equals(schema)


def test_the_same_settings_give_the_same_bytes_in_any_order_of_work(archive: Folder, tmp_path: Path) -> None:
    again = make_archive(str(tmp_path), reverse=True)
    names = [name for name in archive.list_files() if not name.startswith("tables/frames/done")]
    assert [name for name in again.list_files() if not name.startswith("tables/frames/done")] == names
    different = [name for name in names if archive.read_bytes(name) != again.read_bytes(name)]
    assert different == []


def test_another_seed_gives_another_archive(archive: Folder, tmp_path: Path) -> None:
    other = make_archive(str(tmp_path), seed=4, frames=6)
    name = "detections/cam-01.det.txt"
    assert other.read_bytes(name) != archive.read_bytes(name)[: len(other.read_bytes(name))]


def test_every_mask_fills_its_box_and_no_pixel_has_two_owners(frames: Rows) -> None:
    count = 0
    for row in frames:
        owners = np.zeros((row["height"], row["width"]), int)
        for person in row["persons"]:
            mask = rle_to_mask(person["mask_rle"])
            ys, xs = np.nonzero(mask)
            assert person["box_xyxy_px"] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert 0.2 <= person["score"] <= 1.0
            owners += mask
            count += 1
        assert owners.max(initial=0) <= 1
    assert count > 40


def test_ids_are_unique_and_tracks_belong_to_one_person_in_one_set_of_clothes(frames: Rows) -> None:
    ids = [person["person_id"] for row in frames for person in row["persons"]]
    assert len(ids) == len(set(ids))
    wearers = defaultdict(set)
    for row in frames:
        for person in row["persons"]:
            wearers[person["track_id"]].add((row["camera_id"], person["identity"], person["clothes_id"]))
            assert person["clothes_id"].startswith(person["identity"])
            assert person["text"]
    assert all(len(who) == 1 for who in wearers.values())


def test_the_table_holds_the_very_pictures_of_the_video(archive: Folder, frames: Rows) -> None:
    for camera in {row["camera_id"] for row in frames}:
        with av.open(archive.path(f"videos/{camera}.mp4")) as container:
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        own = [row for row in frames if row["camera_id"] == camera]
        assert [row["frame_index"] for row in own] == list(range(len(decoded)))
        for row, picture in zip(own, decoded, strict=True):
            stored = cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
            assert np.abs(stored.astype(int) - picture).mean() < 2.5
            assert row["timestamp_s"] == row["frame_index"] / SMALL["fps"]


def test_ingest_would_call_the_frames_by_the_same_names(archive: Folder, frames: Rows) -> None:
    first = {(row["camera_id"], row["frame_id"]) for row in frames if row["frame_index"] == 0}
    for source in ("videos", "videos/*.mp4"):
        files = list_sources([archive.path(source)])
        assert {(file.camera_id, file.frame_id(0)) for file in files} == first


def test_one_camera_is_infrared(frames: Rows) -> None:
    assert {row["camera_id"] for row in frames if row["modality"] == "ir"} == {"cam-03"}


def test_splits_are_disjoint_and_queries_are_test_identities(archive: Folder, frames: Rows, queries: Rows) -> None:
    splits = archive.read_json("archive.json")["splits"]
    assert not set(splits["train"]) & set(splits["test"])
    seen = {person["identity"] for row in frames for person in row["persons"]}
    assert seen <= set(splits["train"]) | set(splits["test"])
    assert {query["identity"] for query in queries} <= set(splits["test"])
    assert len(queries) >= 3


def test_a_querys_frame_and_box_are_known(frames: Rows, queries: Rows) -> None:
    by_id = {row["frame_id"]: row for row in frames}
    for query in queries:
        assert query["image"] or query["text"]
        (person,) = [p for p in by_id[query["frame_id"]]["persons"] if p["identity"] == query["identity"]]
        assert person["box_xyxy_px"] == query["box_xyxy_px"]
        if query["text"]:
            assert query["text"] == person["text"]
        if query["image"]:
            left, top, right, bottom = query["box_xyxy_px"]
            picture = cv2.imdecode(np.frombuffer(query["image"], np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape[:2] == (bottom - top, right - left)


def test_one_full_query_per_identity_and_variants_with_less(queries: Rows) -> None:
    full = [query for query in queries if query["image"] and query["text"]]
    assert len({query["identity"] for query in full}) == len(full)
    assert {query["query_id"] for query in full} == {query["identity"] for query in full}
    assert any(query["text"] is None for query in queries) and any(query["image"] is None for query in queries)


def test_galleries_share_positives_and_grow_by_distractors(frames: Rows, queries: Rows, galleries: Rows) -> None:
    holders = defaultdict(set)
    for row in frames:
        for person in row["persons"]:
            holders[person["identity"]].add(row["frame_id"])
    own_frame = {query["query_id"]: query["frame_id"] for query in queries}
    by_query = defaultdict(dict)
    for row in galleries:
        by_query[row["query_id"]][row["gallery"]] = row["frame_ids"]
    assert set(by_query) == {query["query_id"] for query in queries if query["image"] and query["text"]}
    for query_id, sizes in by_query.items():
        positives = [{f for f in ids if f in holders[query_id]} for ids in sizes.values()]
        assert positives[0] and all(found == positives[0] for found in positives)
        assert set(sizes["TestG50"]) <= set(sizes["TestG100"]) <= set(sizes["TestG500"])
        assert all(len(ids) == len(set(ids)) and own_frame[query_id] not in ids for ids in sizes.values())
        assert len(sizes["TestG50"]) <= 50


def test_positives_are_few_of_the_querys_own_pass(frames: Rows, queries: Rows, galleries: Rows) -> None:
    track_of = {
        (row["frame_id"], person["identity"]): person["track_id"] for row in frames for person in row["persons"]
    }
    asked = {query["query_id"]: query for query in queries}
    looked_at = 0
    for row in galleries:
        query = asked[row["query_id"]]
        own = track_of[query["frame_id"], query["identity"]]
        tracks = [track_of[f, query["identity"]] for f in row["frame_ids"] if (f, query["identity"]) in track_of]
        others = sum(track != own for track in tracks)
        assert len(tracks) <= MOST_POSITIVES
        assert len(tracks) - others <= (max(1, others // 3 + 1) if others else MOST_OWN_ALONE)
        looked_at += len(tracks)
    assert looked_at


def test_galleries_that_are_too_short_are_noted(archive: Folder) -> None:
    notes = archive.read_json("archive.json")["notes"]
    assert any("TestG100, TestG500 hold fewer frames" in note for note in notes)


def test_detections_are_near_the_truth(archive: Folder, frames: Rows) -> None:
    truth = {row["frame_index"]: row["persons"] for row in frames if row["camera_id"] == "cam-01"}
    lines = archive.read_bytes("detections/cam-01.det.txt").decode().splitlines()
    near = 0
    for line in lines:
        frame, identity, left, top, _width, height, score = map(float, line.split(","))
        assert identity == -1 and 0 < score < 1
        boxes = [person["box_xyxy_px"] for person in truth[int(frame) - 1]]
        near += any(abs(left - b[0]) < 0.3 * height and abs(top - b[1]) < 0.3 * height for b in boxes)
    assert near >= 0.8 * len(lines) > 0


def test_joined_stretches_are_the_stretches_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    pictures = [np.full((48, 64, 3), int(level), np.uint8) for level in rng.integers(0, 255, 12)]
    stretches = [encode_stretch(pictures[n : n + 5], fps=4, quality=18, size_wh=(64, 48)) for n in (0, 5, 10)]
    film = io.BytesIO()
    assert join_stretches(stretches, film, fps=4) == 12
    apart = [frame for data in stretches for frame in decode_stretch(data)]
    together = list(decode_stretch(film.getvalue()))
    assert len(together) == 12
    assert all(np.array_equal(one, other) for one, other in zip(apart, together, strict=True))
    with av.open(io.BytesIO(film.getvalue())) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert times == pytest.approx([number / 4 for number in range(12)])


def test_run_synth_on_ray_equals_the_plain_loop_and_a_rerun_does_nothing(
    archive: Folder, tmp_path: Path, ray_cluster: None
) -> None:
    config = SynthConfig(out=str(tmp_path / "out"), **SMALL)
    summary = run_synth(config, Progress())
    made = Folder(config.out)
    assert summary.figures["frames"] == SMALL["frames"]
    for name in ("tables/queries/queries.parquet", "tables/galleries/galleries.parquet", "videos/cam-02.mp4"):
        assert made.read_bytes(name) == archive.read_bytes(name)
    before = {name: made.identity(name) for name in made.list_files()}
    run_synth(config, Progress())
    assert {name: made.identity(name) for name in made.list_files()} == before
    assert not [name for name in made.list_files() if "segments" in name]


def test_the_plan_counts_and_estimates() -> None:
    plan = plan_synth(SynthConfig(out="unused", **SMALL))
    assert plan.lines["frames"] == 60 and plan.lines["shards"] == 6
    assert plan.expected_s is not None and plan.expected_s > 0


def test_the_preview_is_a_picture() -> None:
    data = paint_preview(SynthConfig(out="unused", **SMALL))
    sheet = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape[1] == 1600 and sheet.std() > 20


def test_the_record_can_be_read_without_the_library(archive: Folder) -> None:
    record = json.loads(archive.read_bytes("archive.json"))
    assert record["settings"]["seed"] == SMALL["seed"]
    assert [camera["camera_id"] for camera in record["cameras"]] == ["cam-01", "cam-02", "cam-03"]
