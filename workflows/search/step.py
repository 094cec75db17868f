"""`psreid search`: whom we look for, in which frames, outlined. One call runs or continues every step."""

import pyarrow.compute as pc

from workflows.index.inputs import StepInput
from workflows.progress import Plan, Progress, Summary
from workflows.ray_cluster import stop_ray
from workflows.report.config import ReportConfig
from workflows.report.step import run_report
from workflows.search.archive import check_encoder, check_judge, open_archive
from workflows.search.config import SearchConfig
from workflows.search.estimate import estimate_search
from workflows.search.extent import check_filter
from workflows.search.steps import (
    Search,
    judge_pairs,
    prepare_queries,
    rank_matches,
    rank_persons,
    shortlist_frames,
)


def run_search(config: SearchConfig, progress: Progress) -> Summary:
    """Finds the queried persons; continues where an earlier run stopped."""
    search = open_search(config, progress)
    queries = prepare_queries(search)
    shortlist = shortlist_frames(search, queries) if config.recall == "top" else None
    if config.stop_after == "recall":
        assert shortlist is not None, "the config refuses to stop after a recall that is off"
        return _recall_summary(search, queries, rank_persons(search, queries, shortlist))
    judged = judge_pairs(search, queries, shortlist)
    matches = rank_matches(search, queries, judged)
    stop_ray()
    if not config.report:
        return _match_summary(search, queries, judged, matches, matches.folder.uri)
    out, frames = matches.folder.child("report").uri, search.archive.frames.folder.uri
    report = run_report(ReportConfig(matches=matches.folder.uri, out=out, frames=frames), progress)
    return _match_summary(search, queries, judged, matches, report.output)


def plan_search(config: SearchConfig) -> Plan:
    """What a search would do; the time is measured on a few pairs of this very search."""
    return estimate_search(open_search(config, Progress()))


def open_search(config: SearchConfig, progress: Progress) -> Search:
    """The search with its archive, checked."""
    search = Search(config, open_archive(config), progress)
    check_judge(config)
    if config.recall == "top":
        check_encoder(config, search.archive)
    check_filter(search.archive.frames, search.frame_filter)
    return search


def _recall_summary(search: Search, queries: StepInput, persons: StepInput) -> Summary:
    figures = _figures(search, queries) | {"rows": persons.manifest.rows}
    headline = (
        f"Ranked {persons.manifest.rows} persons for {_count(queries.manifest.rows, 'query', 'queries')} by recall "
        f"alone, in {search.shortlist_size} frames each: {persons.folder.uri}"
    )
    return Summary(headline, persons.folder.uri, figures)


def _match_summary(search: Search, queries: StepInput, judged: StepInput, matches: StepInput, look_at: str) -> Summary:
    num_matches, num_found = _count_matches(matches)
    found = f"{num_found} of {_count(queries.manifest.rows, 'query', 'queries')}"
    num_pairs = judged.manifest.rows + sum(judged.manifest.drops.values())
    headline = (
        f"Found {found} in {_count(num_matches, 'match', 'matches')}, "
        f"after judging {_count(num_pairs, 'pair', 'pairs')}: {look_at}"
    )
    figures = _figures(search, queries) | {
        "pairs": num_pairs,
        "matches": num_matches,
        "queries_found": num_found,
        "quarantined": judged.manifest.quarantined + queries.manifest.quarantined,
        "worker_seconds": judged.manifest.seconds,
    }
    details = []
    archive = search.archive
    if len(search.searched(archive.frames).parts) < len(archive.frames.parts):
        parts = [f"{len(search.searched(step).parts)} of {len(step.parts)}" for step in (archive.index, archive.frames)]
        details.append(f"read for this time and camera: {parts[0]} parts of the index, {parts[1]} parts of the frames")
    if archive.num_not_indexed:
        details.append(
            f"{archive.num_not_indexed} frames came after the index and were not searched: `psreid index` adds them"
        )
    if queries.manifest.quarantined:
        details.append(
            f"{_count(queries.manifest.quarantined, 'query was', 'queries were')} set aside: "
            f"{queries.folder.path('quarantine')}"
        )
    return Summary(headline, matches.folder.uri, figures, details=details)


def _figures(search: Search, queries: StepInput) -> dict[str, float | int | str]:
    return {
        "frames": search.archive.num_frames,
        "persons": search.archive.num_persons,
        "queries": queries.manifest.rows,
        "queries_set_aside": queries.manifest.quarantined,
    }


def _count_matches(matches: StepInput) -> tuple[int, int]:
    """(matches, queries with at least one), a part in memory at a time."""
    num_matches = num_found = 0
    for part in matches.parts:
        accepted = pc.field("decision") == "match"
        ids = matches.folder.read_table(part.name, ["query_id"], accepted)["query_id"]
        num_matches += len(ids)
        num_found += len(ids.unique())  # a query is in one part
    return num_matches, num_found


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
