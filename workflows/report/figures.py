"""What the run came to, in words and numbers for the foot of the page: from the manifests of its steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from workflows.index.inputs import StepInput
from workflows.report.inputs import Footage, ReportInputs, num_pairs
from workflows.report.selection import Best, Tally
from workflows.report.words import count, duration

STEP_NAMES = {
    "ingest": "Frames and persons read",
    "index": "Persons encoded",
    "queries": "Queries checked",
    "recall": "Likest frames found",
    "shortlist": "Shortlists made",
    "judged": "Pairs judged, masks drawn",
    "matches": "Matches ranked",
}
SHIPPED_MODEL = "tiny"

SCORE_MEANING = (
    "A score says how strongly the model favours “this person is in the frame” over “is not” (the difference of both "
    "answers' logits): at 0 it is undecided, higher is surer. Scores order the frames of a query; they are no "
    "probabilities, and those of different queries do not compare."
)
COSINE_MEANING = (
    "A score says how alike the query and the frame’s best person are to the index’s model, as the query’s task asks: "
    "the cosine of their features, from -1 to 1. PS-ReID did not judge these frames: it would have looked for the "
    "clothes of the query’s picture. Scores are no probabilities."
)


@dataclass(frozen=True)
class Labelled:
    """A value with its name."""

    label: str
    value: str


@dataclass(frozen=True)
class StepFigures:
    """One line of the table of steps."""

    label: str
    rows: str
    quarantined: str
    drops: str
    seconds: str


def tiles(inputs: ReportInputs, footage: Sequence[Footage], num_queries: int, num_matches: int) -> list[Labelled]:
    """The run's main numbers."""
    pairs = num_pairs(inputs)
    quarantined = sum(step.manifest.quarantined for _, step in inputs.steps)
    work_s = sum(step.manifest.seconds for _, step in inputs.steps)
    numbers = [
        ("frames", f"{inputs.frames.manifest.rows:,}"),
        ("cameras", f"{len({found.camera_id for found in footage}):,}"),
        ("queries", f"{num_queries:,}"),
        ("pairs judged", "unknown" if pairs is None else f"{pairs:,}"),
        ("matches", f"{num_matches:,}"),
        ("set aside", f"{quarantined:,}"),
        ("of work", duration(work_s)),
    ]
    return [Labelled(label, value) for label, value in numbers]


def step_table(inputs: ReportInputs) -> list[StepFigures]:
    """One line per step that ran."""
    return [_step_figures(name, step) for name, step in inputs.steps]


def score_meaning(inputs: ReportInputs) -> str:
    """What the numbers beside the frames are, by who judged."""
    return COSINE_MEANING if inputs.setting("judge_by") == "recall" else SCORE_MEANING


def limits(inputs: ReportInputs) -> list[str]:
    """What a reader must not conclude from the page, plainly."""
    model = inputs.setting("model")
    sentences = ["A match is a lead to check by eye, never a proof of identity."]
    if model == SHIPPED_MODEL:
        sentences.append(
            "The model that made these is the small one shipped with psreid, trained on synthetic people only: expect "
            "wrong matches and missed persons on real footage."
        )
    sentences.append(_coverage(inputs))
    sentences.append("Times count from the start of each video; the cameras' clocks are not compared.")
    return sentences


def empty_reason(inputs: ReportInputs, tallies: Sequence[Tally]) -> list[str]:
    """Why there is no match, kindly."""
    if not inputs.frames.manifest.rows:
        return ["The gallery is empty: no frame was searched.", "Ingest some footage, then search again."]
    if not inputs.queries.manifest.rows:
        return [_no_query(inputs.queries)]
    judged = sum(tally.rejects for tally in tallies)
    if not judged:
        return [
            f"{count(inputs.frames.manifest.rows, 'frame was', 'frames were')} searched, and none was judged to show a "
            "person that was looked for."
        ]
    best = max((tally.best_reject for tally in tallies if tally.best_reject), key=lambda best: best.score, default=None)
    pairs = count(judged, "pair of query and frame was", "pairs of query and frame were")
    sentences = [f"{pairs} judged, and none scored above the threshold."]
    if best is not None:
        threshold = inputs.setting("threshold")
        needed = f"; a match needs more than {threshold:g}" if isinstance(threshold, int | float) else ""
        sentences.append(f"The best score was {_score(best)}{needed}.")
        sentences.append("The frames that came closest are kept below as near misses.")
    return sentences


def sources(inputs: ReportInputs) -> list[Labelled]:
    """The folders and settings behind the page."""
    named = [("Matches", inputs.matches.folder.uri), ("Frames", inputs.frames.folder.uri)]
    named += [("Index", inputs.setting("index")), ("Model", inputs.setting("model"))]
    named += [("Threshold", inputs.setting("threshold")), ("Recall", inputs.setting("recall"))]
    return [Labelled(label, str(value)) for label, value in named if value is not None]


def _step_figures(name: str, step: StepInput) -> StepFigures:
    manifest = step.manifest
    drops = ", ".join(f"{reason.replace('_', ' ')} {number:,}" for reason, number in sorted(manifest.drops.items()))
    return StepFigures(
        STEP_NAMES.get(name, name),
        f"{manifest.rows:,}",
        f"{manifest.quarantined:,}",
        drops or "none",
        duration(manifest.seconds),
    )


def _coverage(inputs: ReportInputs) -> str:
    searched = count(inputs.frames.manifest.rows, "frame")
    per_query = inputs.setting("shortlist_size")
    if inputs.setting("recall") == "top" and isinstance(per_query, int):
        return (
            f"Not seen does not mean not there: {searched} were compared, and of these the model judged only the "
            f"{per_query:,} likest per query."
        )
    return f"Not seen does not mean not there: only the {searched} that were taken from the footage were searched."


def _no_query(queries: StepInput) -> str:
    if not queries.manifest.quarantined:
        return "There was no query to look for."
    set_aside = count(queries.manifest.quarantined, "query was", "queries were")
    reasons = queries.folder.path("quarantine")
    return f"None of the queries could be used; {set_aside} set aside, each with its reason, in {reasons}."


def _score(best: Best) -> str:
    return f"{best.score:.2f}, on camera {best.camera_id}"
