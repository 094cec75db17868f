"""Inputs that cannot be used end in a clear message or a quarantine row, and the rest completes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.harness import Outcome, run_command
from tests.faults.line import Line, make_line, queries_bytes, query_rows
from workflows.ledger import Ledger
from workflows.storage import Folder

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    local = tmp_path_factory.mktemp("poison")
    line = make_line(local, str(local / "archive"))
    good = _run(line.ingest(str(local / "frames")), local / "frames")
    assert good.exit_code == 0, good.output
    indexed = _run(line.index(str(local / "frames"), str(local / "index")), local / "index")
    assert indexed.exit_code == 0, indexed.output
    return line


def _run(command: list[str], watch: Path) -> Outcome:
    return run_command(command, watch=watch)


def _local(line: Line) -> Path:
    return Path(line.model).parent


def _quarantine(folder: Path) -> list[dict[str, object]]:
    return Ledger.read(Folder(str(folder))).read_quarantine().to_pylist()


def _with_null_image(source: Path, out: Path) -> str:
    """A copy of a frames folder in which one frame has lost its picture; gives that frame's id."""
    out.mkdir()
    (out / "done").mkdir()
    for path in source.rglob("*"):
        if path.is_file() and path.suffix in {".json", ".parquet"} and path.parent.name in {source.name, "done"}:
            (out / path.relative_to(source)).write_bytes(path.read_bytes())
    part = sorted(out.glob("part-*.parquet"))[0]
    table = pq.read_table(part)
    images = table["image"].to_pylist()
    images[3] = None
    position = table.schema.get_field_index("image")
    table = table.set_column(position, table.schema.field("image"), pa.array(images, pa.binary()))
    pq.write_table(table, part, row_group_size=16)
    return str(table["frame_id"][3].as_py())


def test_a_frame_without_a_picture_is_set_aside_and_the_rest_is_indexed(line: Line, tmp_path: Path) -> None:
    lost = _with_null_image(_local(line) / "frames", tmp_path / "frames")
    outcome = _run(line.index(str(tmp_path / "frames"), str(tmp_path / "index")), tmp_path / "index")
    assert outcome.exit_code == 0, outcome.output
    aside = _quarantine(tmp_path / "index")
    assert [lost in str(row["row_id"]) for row in aside] == [True]
    assert Ledger.read(Folder(str(tmp_path / "index"))).read_table(columns=["frame_id"]).num_rows == 95 * 3


def test_beyond_the_share_the_job_fails_and_says_why(line: Line, tmp_path: Path) -> None:
    _with_null_image(_local(line) / "frames", tmp_path / "frames")
    command = [*line.index(str(tmp_path / "frames"), str(tmp_path / "index")), "--set", "max_quarantine_share=0.001"]
    outcome = _run(command, tmp_path / "index")
    assert outcome.exit_code == 1
    assert "max_quarantine_share" in outcome.output and "quarantine" in outcome.output


def test_a_query_with_neither_picture_nor_words_is_set_aside(line: Line, tmp_path: Path) -> None:
    rows = [*query_rows(), {"query_id": "nobody"}]
    (tmp_path / "queries.parquet").write_bytes(queries_bytes(rows))
    command = line.search(str(_local(line) / "index"), str(tmp_path / "matches"))
    command[command.index(line.queries)] = str(tmp_path / "queries.parquet")
    outcome = _run([*command, "--set", "max_quarantine_share=0.5"], tmp_path / "matches")
    assert outcome.exit_code == 0, outcome.output
    assert [row["row_id"] for row in _quarantine(tmp_path / "matches" / "queries")] == ["nobody"]
    found = Ledger.read(Folder(str(tmp_path / "matches"))).read_table(columns=["query_id"])
    assert set(found["query_id"].to_pylist()) == {"picture", "words", "both"}


def test_a_query_that_nobody_matches_completes_and_says_so(line: Line, tmp_path: Path) -> None:
    command = line.search(str(_local(line) / "index"), str(tmp_path / "matches"))
    command[command.index("--threshold") + 1] = "1000"
    outcome = _run([*command, "--json"], tmp_path / "matches")
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.output.strip().splitlines()[-1])
    decisions = Ledger.read(Folder(str(tmp_path / "matches"))).read_table(columns=["decision"])["decision"].to_pylist()
    assert set(decisions) <= {"reject"}


def test_an_empty_gallery_is_said_plainly(line: Line, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    outcome = _run(
        ["-m", "ray_jobs", "ingest", str(tmp_path / "videos"), str(tmp_path / "frames"), "--quiet"], tmp_path / "frames"
    )
    assert outcome.exit_code == 2 and "videos" in outcome.output
    outcome = _run(line.index(str(tmp_path / "nothing"), str(tmp_path / "index")), tmp_path / "index")
    assert outcome.exit_code == 2 and "nothing" in outcome.output


def test_a_damaged_video_gives_what_it_holds(line: Line, tmp_path: Path) -> None:
    whole = Path(line.videos) / "cam-a.mp4"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "good.mp4").write_bytes(whole.read_bytes())
    (tmp_path / "videos" / "text.mp4").write_text("this is no video")
    (tmp_path / "videos" / "empty.mp4").write_bytes(b"")
    command = ["-m", "ray_jobs", "ingest", str(tmp_path / "videos"), str(tmp_path / "frames"), "--detector", "none"]
    outcome = _run([*command, "--quiet"], tmp_path / "frames")
    assert outcome.exit_code == 0, outcome.output
    assert {Path(str(row["row_id"])).name for row in _quarantine(tmp_path / "frames")} == {"text.mp4", "empty.mp4"}
    assert Ledger.read(Folder(str(tmp_path / "frames"))).read_table(columns=["frame_id"]).num_rows == 48
