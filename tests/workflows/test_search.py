"""A whole search over several index parts and query groups, its steps real, its runner and models stand-ins."""

import datetime
import json
import os
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from modeling.errors import ConfigError, DataError
from modeling.regions import rle_to_mask
from tests.workflows import small_archive as small
from workflows.config import load_config
from workflows.index import step as index_step
from workflows.index.config import IndexConfig
from workflows.index.inputs import open_step
from workflows.ledger import Ledger
from workflows.progress import Progress, Summary
from workflows.schema import MATCHES
from workflows.search import archive as archive_module
from workflows.search import estimate, recall, sample, steps
from workflows.search import queries as queries_module
from workflows.search import step as search_step
from workflows.search.config import SearchConfig
from workflows.search.coverage import measure_coverage
from workflows.search.tables import RANKED_PERSONS
from workflows.stages import ShardBatch
from workflows.storage import Folder

NUM_FRAMES = 48
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_models(monkeypatch)


def patch_models(patch: pytest.MonkeyPatch) -> None:
    """Stand-ins, and small groups everywhere, so that 48 frames and 10 queries make many parts of everything."""
    patch.setattr(os, "fsync", lambda _: None)  # durability is the storage tests' business
    for module in (index_step, steps):
        patch.setattr(module, "run_step", small.run_step_in_process)
        patch.setattr(module, "identity_of_model", lambda model: f"weights of {model}")
        patch.setattr(module, "load_person_encoder", lambda model, **_: small.ColourEncoder())
    patch.setattr(archive_module, "identity_of_model", lambda model: f"weights of {model}")
    patch.setattr(steps, "load_judge", lambda model, **_: small.ColourJudge())
    patch.setattr(steps, "load_segmenter", lambda model, **_: small.BoxSegmenter())
    patch.setattr(search_step, "run_report", lambda config, _: Summary("", config.out))
    patch.setattr(queries_module, "GROUP_QUERIES", 3)
    patch.setattr(recall, "GROUP_QUERIES", 3)
    patch.setattr(recall, "SHARD_PERSONS", 25)
    patch.setattr(recall, "SHARD_ROWS", 60)


@pytest.fixture(scope="module")
def frames() -> list[Row]:
    return small.random_frames(NUM_FRAMES, cameras=2, seed=1)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, frames: list[Row]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch_models(patch)
        return make_index(tmp_path_factory.mktemp("archive"), frames)


def make_index(folder: Path, frames: list[Row]) -> str:
    frames_uri = small.write_frames(folder / "frames", frames)
    out = str(folder / "index")
    index_step.run_index(IndexConfig(frames=frames_uri, out=out), Progress())
    return out


@pytest.fixture
def queries() -> list[Row]:
    by_colour = [small.query_row(f"q-{name}", name) for name in small.NAMES]
    by_text = [small.query_row("t-red", text="a red coat"), small.query_row("t-blue", "blue", text="a blue coat")]
    own = [small.query_row("own-0", "red", frame_id="cam-0/video#3"), small.query_row("own-1", "red")]
    return [*by_colour, *by_text, *own]


def search(folder: Path, index: str, queries: list[Row], **settings: Any) -> tuple[Summary, list[Row]]:
    table = small.write_queries(folder / "queries", queries)
    out = str(folder / settings.pop("out", "out"))
    summary = search_step.run_search(SearchConfig(index=index, queries=table, out=out, **settings), Progress())
    return summary, rows_of(out)


def rows_of(out: str) -> list[Row]:
    """Stored rows by query; within a query in stored order."""
    ledger = Ledger.read(Folder(out))
    rows = [row for part in ledger.parts() for row in ledger.folder.read_table(part.name).to_pylist()]
    return sorted(rows, key=lambda row: row["query_id"])


def oracle_recall(index: str, queries: list[Row]) -> dict[str, list[tuple[float, str]]]:
    """query -> every frame as (score, frame_id), best first: each pair of embeddings scored alone."""
    persons = Ledger.read(Folder(index)).read_table().to_pylist()
    vectors = {q["query_id"]: small.query_vector(queries_module.query_input(q)).astype(np.float16) for q in queries}
    ranked = {}
    for query in queries:
        best: dict[str, float] = defaultdict(lambda: -2.0)
        for person in persons:
            if person["frame_id"] != query["frame_id"]:
                vector = np.array(person["embedding"], dtype=np.float64)
                score = float(np.float32(vectors[query["query_id"]].astype(np.float64) @ vector))
                best[person["frame_id"]] = max(best[person["frame_id"]], score)
        ranked[query["query_id"]] = sorted(((s, f) for f, s in best.items()), key=lambda pair: (-pair[0], pair[1]))
    return ranked


@pytest.mark.parametrize("size", [1, 4, 7, 1000])
def test_the_shortlist_is_the_exact_top_k(tmp_path: Path, index: str, queries: list[Row], size: int) -> None:
    search(tmp_path, index, queries, shortlist_size=size)
    assert len(Ledger.read(Folder(str(tmp_path / "out/recall"))).parts()) > 3
    assert len(Ledger.read(Folder(str(tmp_path / "out/shortlist"))).parts()) == 4
    found = defaultdict(list)
    for row in rows_of(str(tmp_path / "out/shortlist")):
        found[row["query_id"]].append((row["recall_score"], row["frame_id"]))
    for query_id, expected in oracle_recall(index, queries).items():
        assert sorted(found[query_id], key=lambda pair: (-pair[0], pair[1])) == expected[:size]


def test_matches_are_the_shortlist_judged_ranked_and_outlined(
    tmp_path: Path, index: str, frames: list[Row], queries: list[Row]
) -> None:
    summary, rows = search(tmp_path, index, queries, shortlist_size=12)
    assert len(rows) == 12 * len(queries) == summary.figures["pairs"]
    by_id = {frame["frame_id"]: frame for frame in frames}
    for query in queries:
        own = [row for row in rows if row["query_id"] == query["query_id"]]
        assert [row["rank"] for row in own] == list(range(1, 13))
        keys = [(-row["score"], -row["recall_score"], row["frame_id"]) for row in own]
        assert keys == sorted(keys)
        assert {row["frame_id"] for row in own} == {f for _, f in oracle_recall(index, [query])[query["query_id"]][:12]}
    for row in rows:
        colour = row["query_id"].split("-")[1].replace("0", "red").replace("1", "red")
        person = next((p for p in by_id[row["frame_id"]]["persons"] if p["identity"] == colour), None)
        assert (row["decision"] == "match") == (person is not None) == (row["score"] > 0)
        assert round(row["score"], 4) == pytest.approx(row["score"], abs=1e-7)
        if person is None:
            assert row["mask_rle"] is None
        else:
            left, top, right, bottom = (int(edge) for edge in person["box_xyxy_px"])
            expected = np.zeros((small.HEIGHT, small.WIDTH), dtype=bool)
            expected[top:bottom, left:right] = True
            assert (rle_to_mask(row["mask_rle"]) == expected).all() and row["box_xyxy_px"] == person["box_xyxy_px"]


def test_a_match_leads_back_to_its_video_frame(
    tmp_path: Path, index: str, frames: list[Row], queries: list[Row]
) -> None:
    _, rows = search(tmp_path, index, queries, shortlist_size=5)
    by_id = {frame["frame_id"]: frame for frame in frames}
    for row in rows:
        frame = by_id[row["frame_id"]]
        for name in ("video_uri", "frame_index", "timestamp_s", "camera_id", "width", "height"):
            assert row[name] == frame[name]
        stored = pq.read_table(Path(index).parent / "frames" / row["frames_part"], columns=["frame_id"])
        assert row["frame_id"] in stored["frame_id"].to_pylist()
    parts = Ledger.read(Folder(str(tmp_path / "out"))).parts()
    assert pq.read_schema(str(tmp_path / "out" / parts[0].name)).equals(MATCHES)


@pytest.mark.parametrize("recall_mode", ["top", "none"])
def test_a_query_never_matches_its_own_frame(tmp_path: Path, index: str, queries: list[Row], recall_mode: str) -> None:
    size = {"shortlist_size": 1000} if recall_mode == "top" else {}
    _, rows = search(tmp_path, index, queries, recall=recall_mode, **size)
    own = {row["frame_id"] for row in rows if row["query_id"] == "own-0"}
    other = {row["frame_id"] for row in rows if row["query_id"] == "own-1"}
    assert other - own == {"cam-0/video#3"} and own < other


def test_without_recall_every_pair_is_judged(tmp_path: Path, index: str, frames: list[Row], queries: list[Row]) -> None:
    _, rows = search(tmp_path, index, queries, recall="none")
    expected = {(q["query_id"], f["frame_id"]) for q in queries for f in frames} - {("own-0", "cam-0/video#3")}
    assert {(row["query_id"], row["frame_id"]) for row in rows} == expected and len(rows) == len(expected)
    assert all(row["recall_score"] is None for row in rows)


def test_the_result_does_not_depend_on_batches_caches_or_shards(
    tmp_path: Path, index: str, queries: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows = search(tmp_path, index, queries, shortlist_size=9)
    monkeypatch.setattr(queries_module, "GROUP_QUERIES", 64)
    monkeypatch.setattr(recall, "SHARD_PERSONS", 1)
    monkeypatch.setattr(steps, "load_judge", lambda model, **_: HungryJudge())
    _, others = search(tmp_path, index, queries, shortlist_size=9, out="other", query_cache_mb=1, targets_per_batch=1)
    by_pair = {(row["query_id"], row["rank"]): row for row in others}
    assert len(rows) == len(others) and all(by_pair[row["query_id"], row["rank"]] == row for row in rows)


def test_parts_with_few_pairs_are_judged_together(
    tmp_path: Path, index: str, queries: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, together = search(tmp_path, index, queries[:1], shortlist_size=10)
    monkeypatch.setattr(steps, "JUDGED_PAIRS_LEAST", 1)
    _, alone = search(tmp_path, index, queries[:1], shortlist_size=10, out="alone")
    assert together == alone
    judged, judged_alone = (Ledger.read(Folder(str(tmp_path / out / "judged"))).parts() for out in ("out", "alone"))
    assert len(judged) == 1 < len({row["frames_part"] for row in together}) == len(judged_alone)


def test_a_shard_of_several_parts_is_isolated_frame_by_frame(tmp_path: Path, index: str, queries: list[Row]) -> None:
    _, rows = search(tmp_path, index, queries[:1], shortlist_size=10)
    given = SearchConfig(index=index, queries=str(tmp_path / "queries"), out=str(tmp_path / "out"), shortlist_size=10)
    opened = search_step.open_search(given, Progress())
    before = [open_step(str(tmp_path / "out" / name), command="search") for name in ("queries", "shortlist")]
    (shard,) = steps.judge_shards(opened, *before, "weights of tiny")
    spec = steps.judge_stages(opened, *before, 1)[0]
    judge = spec.factory(**spec.kwargs)
    frames = judge.plan_rows(shard)
    assert sorted(frame.shard_id for frame in frames) == sorted(row["frame_id"] for row in rows)
    tables = [judge(ShardBatch(frame)).table for frame in frames]
    assert [table["frame_id"].to_pylist() for table in tables] == [[frame.shard_id] for frame in frames]
    part_of = {row["frame_id"]: row["frames_part"] for row in rows}
    assert all(table["frames_part"].to_pylist() == [part_of[table["frame_id"][0].as_py()]] for table in tables)


class HungryJudge(small.ColourJudge):
    """Encoded queries of which two fit the cache."""

    def encode_query(self, query: Any) -> Any:
        encoded = super().encode_query(query)
        return small.EncodedColour(encoded.query_id, encoded.vector, num_bytes=400 << 10)


def test_the_judge_encodes_a_query_once_and_decodes_only_shortlisted_frames(
    tmp_path: Path, index: str, queries: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = small.ColourJudge()
    monkeypatch.setattr(steps, "load_judge", lambda model, **_: judge)
    _, rows = search(tmp_path, index, queries, shortlist_size=3)
    assert sorted(judge.encoded) == sorted(query["query_id"] for query in queries)
    assert sorted(judge.seen) == sorted({row["frame_id"] for row in rows})


def test_rejects_can_be_left_out(tmp_path: Path, index: str, queries: list[Row]) -> None:
    _, everything = search(tmp_path, index, queries)
    summary, rows = search(tmp_path, index, queries, keep_rejects=False, out="other")
    strip = [{**row, "rank": 0} for row in everything if row["decision"] == "match"]
    assert [{**row, "rank": 0} for row in rows] == strip
    assert summary.figures["pairs"] == len(everything)


def test_stopping_after_the_judge_gives_the_same_rows_without_masks(
    tmp_path: Path, index: str, queries: list[Row]
) -> None:
    _, rows = search(tmp_path, index, queries)
    _, unmasked = search(tmp_path, index, queries, stop_after="judge", out="other")
    assert unmasked == [{**row, "mask_rle": None} for row in rows]


def test_stopping_after_recall_gives_every_person_of_the_shortlist(
    tmp_path: Path, index: str, queries: list[Row]
) -> None:
    _, rows = search(tmp_path, index, queries, stop_after="recall", shortlist_size=6)
    persons = {p["person_id"]: p for p in Ledger.read(Folder(index)).read_table().to_pylist()}
    assert list(rows[0]) == RANKED_PERSONS.names
    for query_id, expected in oracle_recall(index, queries).items():
        own = [row for row in rows if row["query_id"] == query_id]
        assert [row["score"] for row in own] == sorted((row["score"] for row in own), reverse=True)
        frames = {frame_id for _, frame_id in expected[:6]}
        assert {row["person_id"] for row in own} == {i for i, p in persons.items() if p["frame_id"] in frames}
        assert max(row["score"] for row in own) == expected[0][0]
    for row in rows:
        assert row["frame_id"].endswith(f"#{row['frame_index']}")
        assert row["box_xyxy_px"] == persons[row["person_id"]]["box_xyxy_px"]


def test_stopping_after_recall_ranks_every_person_by_default(tmp_path: Path, index: str, queries: list[Row]) -> None:
    _, rows = search(tmp_path, index, queries[:2], stop_after="recall")
    assert len(rows) == 2 * Ledger.read(Folder(index)).manifest.rows


def test_camera_and_time_narrow_the_search(tmp_path: Path, index: str, queries: list[Row]) -> None:
    for out, settings in (("a", {"shortlist_size": 1000}), ("b", {"recall": "none"})):
        narrow = {"cameras": ["cam-1"], "since_s": 1.0, "until_s": 2.0} | settings
        _, rows = search(tmp_path, index, queries, out=out, **narrow)
        assert {row["camera_id"] for row in rows} == {"cam-1"}
        assert {row["timestamp_s"] for row in rows} <= {1.0, 1.2, 1.4, 1.6, 1.8, 2.0}
    with pytest.raises(DataError, match="cam-9"):
        search(tmp_path, index, queries, out="c", cameras=["cam-9"])


def test_a_date_narrows_the_search_before_anything_is_opened(tmp_path: Path, queries: list[Row]) -> None:
    start = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    frames = small.random_frames(NUM_FRAMES, cameras=2, seed=1)
    dated = [row | {"recorded_at": start + datetime.timedelta(hours=row["frame_index"])} for row in frames]
    index = make_index(tmp_path, dated)
    window = {"since": "2026-11-01T08:00", "until": "2026-11-01T15:30+00:00", "cameras": ["cam-0"]}
    for out, settings in (("a", {"shortlist_size": 1000}), ("b", {"recall": "none"})):
        summary, rows = search(tmp_path, index, queries, out=out, **window, **settings)
        assert {row["frame_index"] for row in rows} <= set(range(8, 16)) and rows
        assert {row["camera_id"] for row in rows} == {"cam-0"}
        assert all(row["recorded_at"] == start + datetime.timedelta(hours=row["frame_index"]) for row in rows)
        assert any("1 of 6 parts of the index, 1 of 6 parts of the frames" in line for line in summary.details)
        judged = Ledger.read(Folder(str(tmp_path / out / "judged"))).manifest
        assert judged is not None and judged.shards == 1
    with pytest.raises(DataError, match="recorded from 2026-11-01T00:00:00"):
        search(tmp_path, index, queries, out="c", since="2026-12-01")
    with pytest.raises(ConfigError, match=r"since.*Seconds within a video are since_s"):
        load_config(SearchConfig, flags={"index": index, "out": "o", "text": "red", "since": "12.5"})


def test_bad_queries_are_set_aside_and_the_rest_is_found(tmp_path: Path, index: str) -> None:
    rows = [small.query_row("good", "red"), small.query_row("nothing"), small.query_row("blank", text="  ")]
    rows.append(small.query_row("broken") | {"image": b"no picture"})
    summary, matches = search(tmp_path, index, rows)
    assert {row["query_id"] for row in matches} == {"good"}
    bad = Ledger.read(Folder(str(tmp_path / "out/queries"))).read_quarantine().to_pylist()
    assert {(row["row_id"], row["reason"]) for row in bad} == {
        ("nothing", "no_image_and_no_text"),
        ("blank", "no_image_and_no_text"),
        ("broken", "undecodable_image"),
    }
    assert json.loads(bad[-1]["row_json"])["query_id"] == bad[-1]["row_id"]
    assert any("3 queries were set aside" in line for line in summary.details)
    with pytest.raises(DataError, match="none of the 3 queries can be used"):
        search(tmp_path, index, rows[1:], out="other")


def test_a_query_of_nobody_is_rejected_everywhere(tmp_path: Path, index: str) -> None:
    empty = small.query_row("street") | {"image": small.jpeg(np.full((24, 10, 3), small.BACKGROUND, dtype=np.uint8))}
    summary, rows = search(tmp_path, index, [empty])
    assert rows and all(row["decision"] == "reject" and row["mask_rle"] is None for row in rows)
    assert summary.figures["matches"] == 0 and "Found 0 of 1 query" in summary.headline


def test_an_archive_without_persons_is_refused_with_advice(tmp_path: Path, queries: list[Row]) -> None:
    index = make_index(tmp_path, [small.frame_row("cam", i, []) for i in range(5)])
    with pytest.raises(DataError, match="holds no person"):
        search(tmp_path, index, queries)
    _, rows = search(tmp_path, index, queries, recall="none", out="other")
    assert len(rows) == 5 * len(queries) and all(row["decision"] == "reject" for row in rows)


@pytest.mark.parametrize("change", ["twice", "empty", "no_columns", "null_id", "missing"])
def test_bad_query_tables_are_refused(tmp_path: Path, index: str, change: str) -> None:
    table = pa.table({"query_id": ["a", "b"], "text": ["red", "blue"]})
    folder = Folder(str(tmp_path / "given"))
    message = {
        "twice": "same query_id more than once: 'a'",
        "empty": "holds no query",
        "no_columns": "neither a column `image` nor a column `text`",
        "null_id": "without a query_id",
        "missing": "there are no queries at",
    }[change]
    if change == "twice":
        folder.write_table("second.parquet", table)
    if change == "null_id":
        table = table.set_column(0, "query_id", pa.array(["a", None]))
    if change != "missing":
        folder.write_table("first.parquet", {"empty": table[:0], "no_columns": table.drop(["text"])}.get(change, table))
    with pytest.raises(DataError, match=message):
        config = SearchConfig(index=index, queries=folder.uri, out=str(tmp_path / "out"))
        search_step.run_search(config, Progress())


def test_a_plain_table_of_texts_is_enough(tmp_path: Path, index: str) -> None:
    folder = Folder(str(tmp_path / "given"))
    folder.write_table("texts.parquet", pa.table({"query_id": [7, 8], "text": ["a red coat", "a blue coat"]}))
    search_step.run_search(SearchConfig(index=index, queries=folder.uri, out=str(tmp_path / "out")), Progress())
    best = {row["query_id"]: row for row in rows_of(str(tmp_path / "out")) if row["rank"] == 1}
    assert set(best) == {"7", "8"} and all(row["decision"] == "match" for row in best.values())


def test_a_query_by_flags(tmp_path: Path, index: str, frames: list[Row]) -> None:
    picture = tmp_path / "crop.jpg"
    picture.write_bytes(small.query_row("q", "green")["image"])
    by_flags = {"index": index, "image": str(picture), "text": "green coat"}
    search_step.run_search(SearchConfig(out=str(tmp_path / "a"), **by_flags), Progress())
    assert {row["query_id"] for row in rows_of(str(tmp_path / "a"))} == {"query"}
    frame = next(f for f in frames if any(p["identity"] == "yellow" for p in f["persons"]))
    left, top, right, bottom = next(p for p in frame["persons"] if p["identity"] == "yellow")["box_xyxy_px"]
    box = (left, top, right - left, bottom - top)
    config = SearchConfig(index=index, frame=frame["frame_id"], box=box, out=str(tmp_path / "b"), shortlist_size=1000)
    search_step.run_search(config, Progress())
    rows = rows_of(str(tmp_path / "b"))
    expected = {f["frame_id"] for f in frames if any(p["identity"] == "yellow" for p in f["persons"])}
    matched = {row["frame_id"] for row in rows if row["decision"] == "match"}
    assert matched == expected - {frame["frame_id"]} and frame["frame_id"] not in {row["frame_id"] for row in rows}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "there is no query"),
        ({"text": " "}, "there is no query"),
        ({"frame": "cam-0/video#1"}, "go together"),
        ({"queries": "q", "text": "red"}, "not both"),
        ({"text": "red", "recall": "none", "shortlist_size": 3}, "no meaning"),
        ({"text": "red", "recall": "none", "stop_after": "recall"}, "needs a recall"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchConfig(index="i", out="o", **settings)


def test_bad_flag_queries_are_refused_at_once(tmp_path: Path, index: str) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff not really")

    def run(**query: Any) -> None:
        search_step.run_search(SearchConfig(index=index, out=str(tmp_path / "out"), **query), Progress())

    with pytest.raises(DataError, match="cannot be decoded"):
        run(image=str(broken))
    with pytest.raises(DataError, match="there is no file"):
        run(image=str(tmp_path / "nowhere.jpg"))
    with pytest.raises(ConfigError, match="there is no frame 'cam-7/video#1'"):
        run(frame="cam-7/video#1", box=(0, 0, 9, 9))
    with pytest.raises(DataError, match="no pixel inside"):
        run(frame="cam-0/video#1", box=(900, 0, 9, 9))


def test_a_rerun_does_nothing_and_a_changed_one_is_refused(tmp_path: Path, index: str, queries: list[Row]) -> None:
    _, rows = search(tmp_path, index, queries)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    _, again = search(tmp_path, index, queries)
    assert again == rows
    with pytest.raises(ConfigError, match=r"threshold: there 0\.0, now 0\.5"):
        search(tmp_path, index, queries, threshold=0.5)
    with pytest.raises(ConfigError, match="already holds the output of another run"):
        search(tmp_path, index, queries[:4])
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}


def test_a_search_cut_short_continues_to_the_same_rows(tmp_path: Path, index: str, queries: list[Row]) -> None:
    _, rows = search(tmp_path, index, queries)
    for step, lost in (("recall", 2), ("judged", 3), ("shortlist", 1)):
        folder = tmp_path / "out" / step
        markers = sorted((folder / "done").iterdir())[:lost]
        for marker in markers:
            marker.unlink()
            (folder / f"part-{marker.stem}.parquet").write_bytes(b"cut short")
        (folder / "manifest.json").unlink()
    _, again = search(tmp_path, index, queries)
    assert again == rows


def test_changed_frames_or_model_are_noticed(
    tmp_path: Path, index: str, frames: list[Row], queries: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = small.write_frames(tmp_path / "other frames", frames[:16])
    with pytest.raises(ConfigError, match="are not those that"):
        search(tmp_path, index, queries, frames=other)
    with pytest.raises(DataError, match="give the folder that `psreid index` wrote"):
        search(tmp_path, other, queries)
    monkeypatch.setattr(archive_module, "identity_of_model", lambda model: "other weights")
    with pytest.raises(ConfigError, match="has changed since"):
        search(tmp_path, index, queries, out="new")


def test_the_shortlist_a_judge_reads_is_its_own(
    tmp_path: Path, index: str, queries: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shortlist is sorted by frames part: a reader of one part finds it in few row groups."""
    monkeypatch.setattr(steps, "SHORTLIST_GROUP_ROWS", 4)
    search(tmp_path, index, queries, shortlist_size=20)
    shortlist = open_step(str(tmp_path / "out/shortlist"), command="search")
    for part in shortlist.parts:
        parquet = pq.ParquetFile(shortlist.folder.path(part.name))
        column = parquet.schema_arrow.get_field_index("frames_part")
        bounds = [parquet.metadata.row_group(g).column(column).statistics for g in range(parquet.num_row_groups)]
        assert parquet.num_row_groups > 4
        assert all(earlier.max <= later.min for earlier, later in pairwise(bounds))
        wanted = bounds[0].min
        rows = shortlist.folder.read_table(part.name, filters=pc.field("frames_part") == wanted)
        assert rows.num_rows == sum(v == wanted for v in parquet.read()["frames_part"].to_pylist())


def test_default_shortlist_sizes() -> None:
    def size(num_frames: int, **settings: Any) -> int:
        return SearchConfig(index="i", queries="q", out="o", **settings).frames_judged(num_frames)

    assert [size(n) for n in (10, 600, 20_000)] == [10, 50, 400]
    assert size(20_000, stop_after="recall") == 20_000
    assert size(20_000, shortlist_size=7) == 7 and size(5, shortlist_size=7) == 5


def test_a_plan_counts_the_work_and_measures_a_sample(
    tmp_path: Path, index: str, queries: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    judges: list[small.ColourJudge] = []

    def load_judge(model: str, **_: Any) -> small.ColourJudge:
        judges.append(small.ColourJudge())
        return judges[-1]

    monkeypatch.setattr(steps, "load_judge", load_judge)
    monkeypatch.setattr(sample, "load_person_encoder", lambda model, **_: small.ColourEncoder())
    monkeypatch.setattr(estimate, "load_segmenter", lambda model, **_: small.BoxSegmenter())
    table = small.write_queries(tmp_path / "queries", queries)
    config = SearchConfig(index=index, queries=table, out=str(tmp_path / "out"), shortlist_size=7)
    plan = search_step.plan_search(config)
    assert plan.lines["frames"] == NUM_FRAMES and plan.lines["queries"] == len(queries)
    assert plan.lines["pairs"] == 7 * len(queries) and plan.expected_s is not None and plan.expected_s > 0
    assert 0 < len(set(judges[0].seen)) <= sample.MOST_PER_QUERY * estimate.SAMPLE_QUERIES
    every = search_step.plan_search(config.model_copy(update={"recall": "none", "shortlist_size": None}))
    assert every.lines["pairs"] == NUM_FRAMES * len(queries)
    recall_only = search_step.plan_search(config.model_copy(update={"stop_after": "recall"}))
    assert recall_only.lines["pairs"] == 0 and len(recall_only.work) == 4
    assert not (tmp_path / "out").exists()


def test_coverage_counts_what_a_shortlist_loses(tmp_path: Path, index: str, frames: list[Row]) -> None:
    """By hand: pairs that show the colour and were accepted, and those of them among each query's five frames."""
    queries = [small.query_row(f"q-{name}", name) | {"identity": name} for name in small.NAMES]
    _, everything = search(tmp_path, index, queries, out="all", recall="none")
    _, shortlisted = search(tmp_path, index, queries, out="few", shortlist_size=5)
    found = measure_coverage(str(tmp_path / "all"), str(tmp_path / "few"))
    shows = {row["frame_id"]: {person["identity"] for person in row["persons"]} for row in frames}
    right = {
        (row["query_id"], row["frame_id"])
        for row in everything
        if row["decision"] == "match" and row["query_id"].removeprefix("q-") in shows[row["frame_id"]]
    }
    held = {(row["query_id"], row["frame_id"]) for row in shortlisted}
    assert (found.queries, found.pairs_exhaustive, found.pairs_shortlisted) == (6, 6 * NUM_FRAMES, 30)
    assert (found.rightly_accepted, found.covered) == (len(right), len(right & held))
    assert 0 < found.share < 1
    assert found.top1_exhaustive == found.top1_shortlisted == 1.0
    assert found.speed_up >= 0
    with pytest.raises(DataError, match="Give them in this order"):
        measure_coverage(str(tmp_path / "few"), str(tmp_path / "all"))


def test_coverage_compares_only_what_can_be_compared(tmp_path: Path, index: str) -> None:
    queries = [small.query_row("q-red", "red") | {"identity": "red"}]
    search(tmp_path, index, queries, out="all", recall="none")
    search(tmp_path, index, queries, out="other", shortlist_size=5, threshold=0.5)
    with pytest.raises(DataError, match="differ in threshold"):
        measure_coverage(str(tmp_path / "all"), str(tmp_path / "other"))
    queries[0]["identity"] = "blue"
    search(tmp_path, index, queries, out="few", shortlist_size=5)
    with pytest.raises(DataError, match="searched for other queries"):
        measure_coverage(str(tmp_path / "all"), str(tmp_path / "few"))
