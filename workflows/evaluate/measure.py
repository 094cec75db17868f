"""One model on one benchmark, from the steps on Ray to the scores of every gallery. No printing, no pages.

`judge` ranks frames by the judge's score and measures masks; `recall` and `histogram` rank the persons of the frames by
the cosine of an encoder's embeddings, and the frames by their best person.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from modeling.errors import DataError, JobError
from modeling.metrics.retrieval import Ranking
from workflows.evaluate.config import EvaluateConfig, Modality
from workflows.evaluate.outcomes import Asked, Outcome, QueryPairs, outcome_of, ranked_outcome, read_pairs
from workflows.evaluate.pairs import TruePerson, read_true_persons
from workflows.evaluate.persons import Persons, rank_frames, rank_persons, read_vectors
from workflows.evaluate.questions import Question
from workflows.evaluate.scores import GalleryScores, score_gallery
from workflows.evaluate.steps import Encoder, Evaluation, embed_persons, list_pairs, measure_pairs, prepare_queries
from workflows.evaluate.threshold import BestThreshold, best_threshold
from workflows.index.inputs import StepInput
from workflows.index.models import identity_of_model, load_person_encoder

if TYPE_CHECKING:
    from modeling.baselines.colour_histogram import ColourHistogram

Key = tuple[Modality, str]
"""Modality and gallery."""


@dataclass(frozen=True)
class Measurement:
    """What came out of one evaluation."""

    evaluation: Evaluation
    outcomes: Mapping[Key, Sequence[Outcome]]
    scores: Mapping[Key, GalleryScores]
    frame_scores: Mapping[Key, GalleryScores]
    """Of frames ranked by their best person; empty for the judge, whose scores are of frames anyway."""
    pairs: StepInput
    measured: StepInput | None
    """None where nothing was judged."""
    thresholds: Mapping[Key, BestThreshold | None] = field(default_factory=dict)
    """Of each gallery, the threshold that would have given the best gIoU; empty where nothing was judged."""


def measure(evaluation: Evaluation) -> Measurement:
    """Runs or continues every step, then scores; JobError when a query could not be used."""
    if evaluation.config.ranking == "judge":
        return _measure_judge(evaluation)
    return _measure_persons(evaluation, encoder_of(evaluation))


def encoder_of(evaluation: Evaluation) -> Encoder:
    """What embeds persons for a ranking without the judge."""
    if evaluation.config.ranking == "histogram":
        from modeling.baselines.colour_histogram import ColourHistogram

        return Encoder("colour histogram", ColourHistogram.identity, _load_histogram)
    model = evaluation.config.model
    return Encoder(model, identity_of_model(model), partial(load_person_encoder, model, device=evaluation.device))


def _load_histogram() -> "ColourHistogram":
    from modeling.baselines.colour_histogram import ColourHistogram

    return ColourHistogram()


def _measure_judge(evaluation: Evaluation) -> Measurement:
    queries = _usable(evaluation, prepare_queries(evaluation))
    pairs = list_pairs(evaluation)
    measured = measure_pairs(evaluation, queries, pairs)
    found = dict(read_pairs(pairs, measured))
    config = evaluation.config
    outcomes: dict[Key, list[Outcome]] = {}
    by_gallery: dict[Key, list[QueryPairs]] = {}
    for question, asked, frame_ids in _asked(evaluation):
        of_gallery = found[question.question_id].among(frame_ids) if frame_ids else QueryPairs.none()
        key: Key = (question.modality, asked.gallery)
        by_gallery.setdefault(key, []).append(of_gallery)
        outcomes.setdefault(key, []).append(
            outcome_of(of_gallery, asked, rule=config.rule, min_mask_px=config.min_mask_px)
        )
    scores = _score(config, outcomes, with_masks=True)
    best = {key: best_threshold(found) for key, found in by_gallery.items()}
    return Measurement(evaluation, outcomes, scores, {}, pairs, measured, best)


def _measure_persons(evaluation: Evaluation, encoder: Encoder) -> Measurement:
    queries = _usable(evaluation, prepare_queries(evaluation, encoder))
    pairs = list_pairs(evaluation)
    persons = Persons.read(embed_persons(evaluation, encoder))
    vectors, true = dict(read_vectors(queries)), read_true_persons(pairs.folder)
    by_person: dict[Key, list[Outcome]] = {}
    by_frame: dict[Key, list[Outcome]] = {}
    for question, asked, frame_ids in _asked(evaluation):
        where = _true_in(true.get(question.question_id, {}), frame_ids)
        for rank, outcomes in ((rank_persons, by_person), (rank_frames, by_frame)):
            ranking: Ranking = rank(persons, vectors[question.question_id], frame_ids, where)
            outcome = ranked_outcome(ranking, asked, num_frames=len(frame_ids))
            outcomes.setdefault((question.modality, asked.gallery), []).append(outcome)
    config = evaluation.config
    scores, frame_scores = (_score(config, outcomes, with_masks=False) for outcomes in (by_person, by_frame))
    return Measurement(evaluation, by_person, scores, frame_scores, pairs, None)


def _asked(evaluation: Evaluation) -> Iterator[tuple[Question, Asked, Sequence[str]]]:
    """Every question in every gallery that has it, with the gallery's frames."""
    benchmark = evaluation.benchmark
    for question in evaluation.questions:
        identity = str(benchmark.queries[question.query_id]["identity"])
        for gallery, of_query in benchmark.galleries.items():
            if question.query_id in of_query:
                asked = Asked(gallery, question.query_id, question.modality, identity)
                yield question, asked, of_query[question.query_id]


def _score(
    config: EvaluateConfig, outcomes: Mapping[Key, Sequence[Outcome]], *, with_masks: bool
) -> dict[Key, GalleryScores]:
    rule = config.rule if with_masks else None
    return {
        key: score_gallery(key[1], rows, rule=rule, resamples=config.resamples, seed=config.seed)
        for key, rows in outcomes.items()
    }


def _true_in(true: Mapping[str, TruePerson], frame_ids: Sequence[str]) -> dict[str, TruePerson]:
    return {frame_id: true[frame_id] for frame_id in frame_ids if frame_id in true}


def _usable(evaluation: Evaluation, queries: StepInput) -> StepInput:
    """The queries, all of which must be usable: a benchmark with fewer questions is another benchmark."""
    if not evaluation.questions:
        wanted = " or ".join(evaluation.config.modality)
        raise DataError(f"no query of {evaluation.config.data} can be asked by {wanted}; check its queries table")
    if queries.manifest.quarantined:
        raise JobError(
            f"{queries.manifest.quarantined} of {queries.manifest.rows_read} queries cannot be used; their reasons are "
            f"in {queries.folder.path('quarantine')}. Mend the queries table: scores over fewer queries do not compare."
        )
    return queries
