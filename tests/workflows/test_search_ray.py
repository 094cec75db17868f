"""Index and search through Ray Data, with frames that models cannot survive; models are stand-ins."""

from pathlib import Path

import pytest

from modeling.errors import JobError
from tests.workflows import small_archive as small
from workflows.index import step as index_step
from workflows.index.config import IndexConfig
from workflows.ledger import Ledger
from workflows.progress import Progress
from workflows.search import archive, steps
from workflows.search import step as search_step
from workflows.search.config import SearchConfig
from workflows.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_cluster")
TOO_TALL = "cam-0/video#5"


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (index_step, steps):
        monkeypatch.setattr(module, "identity_of_model", lambda model: f"weights of {model}")
        monkeypatch.setattr(module, "load_person_encoder", small.load_colour_encoder)
    monkeypatch.setattr(archive, "identity_of_model", lambda model: f"weights of {model}")
    monkeypatch.setattr(steps, "load_judge", small.load_colour_judge)
    monkeypatch.setattr(steps, "load_segmenter", small.load_box_segmenter)
    monkeypatch.setattr(search_step, "run_report", lambda config, _: search_step.Summary("", config.out))


def test_index_and_search_on_ray_equal_plain_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = small.random_frames(24)
    rows[5]["persons"] = [*rows[5]["persons"], {"person_id": f"{TOO_TALL}/9", "box_xyxy_px": [0.0, 0.0, 10.0, 47.0]}]
    frames = small.write_frames(tmp_path / "frames", rows)
    queries = small.write_queries(tmp_path / "given", [small.query_row(name, name) for name in small.NAMES])

    def run(out: str) -> list[dict]:
        index = IndexConfig(frames=frames, out=str(tmp_path / out / "index"), max_quarantine_share=0.2)
        index_step.run_index(index, Progress())
        search = SearchConfig(index=index.out, queries=queries, out=str(tmp_path / out / "search"))
        summary = search_step.run_search(search, Progress())
        assert summary.figures["pairs"] == Ledger.read(Folder(search.out)).manifest.rows
        return sorted(
            Ledger.read(Folder(search.out)).read_table().to_pylist(), key=lambda r: (r["query_id"], r["rank"])
        )

    on_ray = run("ray")
    quarantine = Ledger.read(Folder(str(tmp_path / "ray/index"))).read_quarantine().to_pylist()
    assert [(row["row_id"], row["reason"]) for row in quarantine] == [(TOO_TALL, "RuntimeError")]
    persons = Ledger.read(Folder(str(tmp_path / "ray/index"))).read_table(["frame_id"])["frame_id"].to_pylist()
    assert len(persons) == sum(len(row["persons"]) for row in rows if row["frame_id"] != TOO_TALL)
    rows[5]["persons"] = []
    frames = small.write_frames(tmp_path / "frames without it", rows)
    for module in (index_step, steps):
        monkeypatch.setattr(module, "run_step", small.run_step_in_process)
    assert run("plain") == on_ray


def test_an_archive_of_broken_pictures_fails_and_says_why(tmp_path: Path) -> None:
    rows = [frame | {"image": b"broken"} for frame in small.random_frames(8)]
    frames = small.write_frames(tmp_path / "frames", rows)
    with pytest.raises(JobError, match=r"8 of 8 rows were quarantined.*undecodable_image"):
        index_step.run_index(IndexConfig(frames=frames, out=str(tmp_path / "index")), Progress())
