"""`psreid evaluate`: how well a model finds and outlines the queried persons of a benchmark.

OUT/asked.parquet queries/ pairs/ measured/   the steps on the way, resumable (`steps.py`)
OUT/per_query.parquet                         one row a query and gallery
OUT/scores.json                               what `--json` prints, with the settings
OUT/worst.html                                the queries that went worst
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from modeling.metrics.segmentation import Rule
from workflows.evaluate.benchmark import Benchmark, open_benchmark
from workflows.evaluate.config import EvaluateConfig
from workflows.evaluate.outcomes import Outcome, QueryPairs, outcome_of, outcomes_table, read_pairs
from workflows.evaluate.persons import Persons, rank_frames, rank_persons, read_vectors
from workflows.evaluate.scores import GalleryScores, score_gallery
from workflows.evaluate.steps import Evaluation
