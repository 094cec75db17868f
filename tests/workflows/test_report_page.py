"""The page: hostile text stays text, a page in one file loads nothing, and every part it refers to exists."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.report_search import Seen, frame_row, write_search
from workflows.progress import Progress
from workflows.report.config import ReportConfig
from workflows.report.page import SCRIPTS, data_file, script_json
from workflows.report.step import run_report

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script><!-- <script>",
    "\"'><img src=x onerror=alert(3)> {{ 7 * 7 }} &lt; \\u003c",
    "line\u2028separator\u2029and\x00zero",
    "مرحبا שלום \u202egnp.exe",
    "📷👩‍🦰 e\u0301",
    "very long " * 500,
)


class Elements(HTMLParser):
    """Collects start tags with their attributes, and the text of script elements by id."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        else:
            self.text += f" {data}"

    def script(self, element_id: str) -> Any:
        return json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == element_id))


def hostile_search(root: Path) -> str:
    """A search whose query ids, texts, cameras and files are hostile."""
    frames = [frame_row(text[:180], f"{text[:40]}{number}", number) for number, text in enumerate(HOSTILE)]
    queries = [
        {"query_id": f"{text}{number}", "text": text, "image": frames[0]["image"]}
        for number, text in enumerate(HOSTILE)
    ]
    seen = [Seen(query["query_id"], frame["frame_id"], 1.0 + n) for query in queries for n, frame in enumerate(frames)]
    return write_search(root, frames, queries, seen)


def report(matches: str, out: Path, **settings: Any) -> Elements:
    run_report(ReportConfig(matches=matches, out=str(out), **settings), Progress())
    return Elements((out / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("inline_matches", [1000, 0])
def test_hostile_text_stays_text(tmp_path: Path, inline_matches: int) -> None:
    hostile = report(hostile_search(tmp_path / "a"), tmp_path / "out", inline_matches=inline_matches, title=HOSTILE[1])
    run = hostile.script("run")
    assert [query["text"] for query in run["queries"]] == list(HOSTILE)
    assert sorted(run["cameras"]) == sorted(text[:180] for text in HOSTILE)
    code = [text for attributes, text in hostile.scripts if not attributes.get("type")]
    assert len(code) == 1 and "alert(" not in code[0]
    assert {attributes.get("type") for attributes, _ in hostile.scripts} <= {None, "application/json", "text/plain"}
    assert not [
        tag for tag, attributes in hostile.tags if tag == "img" or any(name.startswith("on") for name in attributes)
    ]
    assert HOSTILE[1] in hostile.text and "49" not in run["queries"][2]["text"]


def test_json_in_a_script_cannot_end_it_and_means_the_same() -> None:
    value = {"texts": list(HOSTILE), "number": 1.5, "none": None}
    text = str(script_json(value))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


def test_a_data_file_is_one_call() -> None:
    name, number, rest = re.fullmatch(
        r"(\w+)\((\d+),(.*)\);\n", data_file(7, {"a": HOSTILE[1]}).decode(), re.S
    ).groups()
    assert (name, number, json.loads(rest)) == ("psreidQuery", "7", {"a": HOSTILE[1]})


def test_a_page_in_one_file_loads_nothing(tmp_path: Path) -> None:
    page = report(hostile_search(tmp_path / "a"), tmp_path / "out")
    assert not (tmp_path / "out" / "report_files").exists()
    links = [attributes["href"] for tag, attributes in page.tags if tag == "link"]
    assert all(str(link).startswith("data:") for link in links)
    assert not [tag for tag, attributes in page.tags if attributes.get("src")]
    policy = next(attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv"))
    code = next(text for attributes, text in page.scripts if not attributes)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy is not None and "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_every_reference_of_a_page_exists(tmp_path: Path) -> None:
    matches = hostile_search(tmp_path / "a")
    inline = report(matches, tmp_path / "inline")
    ids = {attributes.get("id") for attributes, _ in inline.scripts}
    beside = report(matches, tmp_path / "beside", inline_matches=0)
    for number, query in enumerate(inline.script("run")["queries"]):
        columns = inline.script(f"query-{number}")
        assert all(reference[1:] in ids for reference in references(columns, query))
    for query in beside.script("run")["queries"]:
        text = (tmp_path / "beside" / query["data"]).read_text(encoding="utf-8")
        columns = json.loads(text.partition(",")[2].removesuffix(");\n"))
        assert all((tmp_path / "beside" / reference).is_file() for reference in references(columns, query))


def references(columns: Any, query: Any) -> list[str]:
    found = [query["image"]]
    for kind in ("matches", "near"):
        found += columns[kind]["zoom"] + [scene["source"] for scene in columns[kind]["scenes"]]
        found += [scene["full"] for scene in columns[kind]["scenes"] if scene["full"]]
    assert len(found) > 2 and None not in found
    return found


def test_the_script_never_writes_markup_and_meets_every_element(tmp_path: Path) -> None:
    """No text can become markup where no script makes markup of text; ids in the script exist in the page."""
    page = report(hostile_search(tmp_path / "a"), tmp_path / "out")
    code = next(text for attributes, text in page.scripts if not attributes)
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "<script", "<!--"):
        assert forbidden not in code
    wanted = set(re.findall(r'(?:byId|getElementById)\("([\w-]+)"\)', code))
    assert wanted and wanted <= {attributes.get("id") for _, attributes in page.tags}
    assert len(SCRIPTS) == 4


def test_controls_have_names(tmp_path: Path) -> None:
    html_root = report(hostile_search(tmp_path / "a"), tmp_path / "out")
    for tag, attributes in html_root.tags:
        if tag in ("section", "dialog", "nav", "aside", "form"):
            assert attributes.get("aria-labelledby") or attributes.get("aria-label"), (tag, attributes)
