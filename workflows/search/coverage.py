"""What recall loses and saves: a search with a shortlist beside one that judged every pair of the same archive.

Both must have judged the same queries with the same model. Truth comes from the identities of the frames table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from modeling.errors import DataError
from workflows.index.inputs import StepInput, open_step
from workflows.ledger import Ledger
from workflows.storage import Folder

SAME_SETTINGS = ("index", "frames", "model", "attention", "threshold", "filter")  # of two searches that are compared
Pairs = set[tuple[str, str]]
"""(query_id, frame_id)."""


@dataclass(frozen=True)
class Coverage:
    """Counts over all queries with an identity; seconds are those that workers spent."""

    queries: int
    pairs_exhaustive: int
    pairs_shortlisted: int
    rightly_accepted: int
    """Pairs that exhaustive judging accepts and that show the queried identity."""
    covered: int
    """Those of them that the shortlist holds."""
    top1_exhaustive: float
    """Share of queries whose first match shows the identity, a fraction of 1."""
    top1_shortlisted: float
    seconds_exhaustive: float
    seconds_shortlisted: float

    @property
    def share(self) -> float:
        """Of the rightly accepted pairs, those that the shortlist holds; 1 where there are none."""
        return self.covered / self.rightly_accepted if self.rightly_accepted else 1.0

    @property
    def speed_up(self) -> float:
        return self.seconds_exhaustive / max(self.seconds_shortlisted, 1e-9)


def measure_coverage(exhaustive_uri: str, shortlisted_uri: str) -> Coverage:
    """Compares two finished searches. DataError when they are not of one archive, one model and the same queries."""
    exhaustive = open_step(exhaustive_uri, command="search")
    shortlisted = open_step(shortlisted_uri, command="search")
    _check_comparable(exhaustive, shortlisted)
    identities = _query_identities(exhaustive)
    if identities != _query_identities(shortlisted):
        raise DataError(f"{shortlisted_uri} and {exhaustive_uri} searched for other queries. Use one queries table.")
    if not identities:
        raise DataError(f"no query of {exhaustive_uri} has an identity, so nobody knows what is right.")
    true_pairs = _true_pairs(Folder(str(exhaustive.step.config["frames"])), identities)
    right = _accepted(exhaustive) & true_pairs
    held = _shortlist(shortlisted)
    return Coverage(
        queries=len(identities),
        pairs_exhaustive=_judged_pairs(exhaustive),
        pairs_shortlisted=len(held),
        rightly_accepted=len(right),
        covered=len(right & held),
        top1_exhaustive=len(_first_matches(exhaustive) & true_pairs) / len(identities),
        top1_shortlisted=len(_first_matches(shortlisted) & true_pairs) / len(identities),
        seconds_exhaustive=_seconds(exhaustive),
        seconds_shortlisted=_seconds(shortlisted),
    )


def _check_comparable(exhaustive: StepInput, shortlisted: StepInput) -> None:
    there, here = exhaustive.step.config, shortlisted.step.config
    if there.get("recall") != "none" or here.get("recall") != "top":
        raise DataError(
            f"{exhaustive.folder.uri} must be a search with --recall none and {shortlisted.folder.uri} one with a "
            f"shortlist; they have recall {there.get('recall')!r} and {here.get('recall')!r}. Give them in this order."
        )
    differing = [name for name in SAME_SETTINGS if there.get(name) != here.get(name)]
    if differing:
        raise DataError(f"the two searches differ in {', '.join(differing)}. Run both with the same settings.")


def _query_identities(search: StepInput) -> dict[str, str]:
    table = Ledger.read(search.folder.child("queries")).read_table(["query_id", "identity"])
    pairs = zip(table["query_id"].to_pylist(), table["identity"].to_pylist(), strict=True)
    return {query_id: identity for query_id, identity in pairs if identity is not None}


def _true_pairs(frames: Folder, identities: Mapping[str, str]) -> Pairs:
    """Every query with every frame that shows its identity, a part in memory at a time."""
    asked: dict[str, list[str]] = {}
    for query_id, identity in identities.items():
        asked.setdefault(identity, []).append(query_id)
    pairs: Pairs = set()
    for part in Ledger.read(frames).parts():
        table = frames.read_table(part.name, ["frame_id", "persons"])
        for frame_id, persons in zip(table["frame_id"].to_pylist(), table["persons"].to_pylist(), strict=True):
            for person in persons:
                pairs |= {(query_id, frame_id) for query_id in asked.get(person["identity"], ())}
    return pairs


def _accepted(search: StepInput) -> Pairs:
    return _pairs(search, pc.field("decision") == "match")


def _first_matches(search: StepInput) -> Pairs:
    return _pairs(search, (pc.field("decision") == "match") & (pc.field("rank") == 1))


def _shortlist(search: StepInput) -> Pairs:
    return _pairs(open_step(search.folder.child("shortlist").uri, command="search"), None)


def _pairs(step: StepInput, condition: pc.Expression | None) -> Pairs:
    tables = [step.folder.read_table(part.name, ["query_id", "frame_id"], condition) for part in step.parts]
    table = pa.concat_tables(tables) if tables else pa.table({"query_id": [], "frame_id": []})
    return set(zip(table["query_id"].to_pylist(), table["frame_id"].to_pylist(), strict=True))


def _judged_pairs(search: StepInput) -> int:
    manifest = open_step(search.folder.child("judged").uri, command="search").manifest
    return manifest.rows + sum(manifest.drops.values())


def _seconds(search: StepInput) -> float:
    """Of the workers, over all steps of a search."""
    names = ("queries", "recall", "shortlist", "judged")
    steps = [search.folder.child(name) for name in names if search.folder.exists(f"{name}/manifest.json")]
    return search.manifest.seconds + sum(open_step(step.uri, command="search").manifest.seconds for step in steps)
