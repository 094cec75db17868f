"""The tables of Instruct-ReID++ as lists of variants: how each is trained and scored here, and the paper's figures.

Table V (task-specific), VI (task-free), VII (joint test set), VIII (ablation). The figures are percent, in the order of
the table's columns: COCAS+ Real2 for CTCC and LI, CUHK-PEDES for T2I, LLCM visible to infrared for VI, LTCC for CC,
Market1501 for Trad. Pure data: `trainings.py` trains, `table.py` scores and prints.

STL is single-task learning, a model for each task; MTL is multi-task learning, one model for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from modeling.instruct_reid.instructions import Task
from workflows.evaluate_reid.config import Setting
from workflows.storage import JSON

Figures = Sequence[float | None]


@dataclass(frozen=True)
class Column:
    """One figure of a variant."""

    task: Task | Literal["all", "average"]
    """A task; all queries on the joint gallery; or the mean over the tasks of the table."""
    metric: str = "mAP"
    """As `TaskScores.row` names it."""

    @property
    def head(self) -> str:
        return {"all": self.metric, "average": "average"}.get(self.task, f"{self.task} {self.metric}")


@dataclass(frozen=True)
class Variant:
    """One row of ours."""

    name: str
    training: Mapping[str, JSON]
    """Dotted settings of `psreid train` that make the model what it is, put over the shared ones."""
    is_multi_task: bool
    paper: Figures


@dataclass(frozen=True)
class ReidTable:
    """One table."""

    number: int
    title: str
    setting: Setting
    columns: Sequence[Column]
    variants: Sequence[Variant]
    others: Mapping[str, Figures] = field(default_factory=dict)
    """Rows of the paper without a counterpart here."""
    note: str = ""
    """What the paper's figures are, where that is not plain."""

    @property
    def tasks(self) -> Sequence[str]:
        """What the table shows, tasks or "all", each once."""
        return list(dict.fromkeys(column.task for column in self.columns if column.task != "average"))


# Settings that decide what a model is: the shared settings of a table do not change them.
IRM: Mapping[str, JSON] = {
    "what": "irm", "edits": True, "losses.is_adaptive": True, "losses.supervision": "memory"
}  # fmt: skip
IRM_PLAIN_VIT = {**IRM, "edits": False}
IRM_PLAIN_TRIPLET = {**IRM, "losses.is_adaptive": False}
IRM_PLUS_PLUS = {**IRM, "what": "irmpp", "edits": False}
IRM_STAR = {**IRM_PLUS_PLUS, "losses.supervision": "triplet"}
"""The baseline of Tables VI and VII: IRM++'s network, trained by triplets."""

SIX_TASKS = (Column("CTCC"), Column("LI"), Column("T2I"), Column("VI"), Column("CC"), Column("Trad"))
TAUS = ("mAP", "mAP25", "mAP50", "mAP75")

TABLE_5 = ReidTable(
    5,
    "task-specific evaluation",
    "task-specific",
    [Column(task, metric) for task in ("CTCC", "LI", "Trad") for metric in ("mAP", "top1")],
    (
        Variant("IRM (STL)", IRM, False, (32.2, 54.8, 30.7, 60.8, 92.3, 96.2)),
        Variant("IRM (MTL)", IRM, True, (41.7, 64.9, 39.8, 71.6, 93.5, 96.5)),
    ),
    others={
        "Baseline": (None, None, 14.9, 31.6, None, None),
        "TransReID": (5.5, 17.5, None, None, 86.8, 94.4),
        "BC-Net": (22.6, 36.9, None, None, None, None),
        "DualBCT-Net": (30.0, 48.9, None, None, None, None),
        "SAN": (None, None, None, None, 88.0, 96.1),
        "HumanBench": (None, None, None, None, 89.5, None),
        "PASS": (None, None, None, None, 93.0, 96.8),
    },
)

TABLE_6 = ReidTable(
    6,
    "task-free evaluation",
    "task-free",
    SIX_TASKS,
    (
        Variant("IRM* (STL)", IRM_STAR, False, (22.2, 28.7, 64.2, 64.6, 46.1, 92.4)),
        Variant("IRM* (MTL)", IRM_STAR, True, (26.3, 31.5, 66.1, 66.0, 46.6, 93.2)),
        Variant("IRM++ (STL)", IRM_PLUS_PLUS, False, (32.2, 35.8, 64.3, 64.5, 46.2, 92.1)),
        Variant("IRM++ (MTL)", IRM_PLUS_PLUS, True, (35.3, 37.3, 66.4, 66.1, 46.7, 93.3)),
    ),
    others={"SOTA": (30.0, 14.9, 63.9, 62.9, 40.8, 93.0)},
)

TABLE_7 = ReidTable(
    7,
    "joint test set",
    "joint",
    [Column("all", metric) for metric in TAUS],
    (
        Variant("IRM* (MTL)", IRM_STAR, True, (56.2, 55.8, 55.4, 54.2)),
        Variant("IRM++ (MTL)", IRM_PLUS_PLUS, True, (65.3, 64.7, 62.1, 60.5)),
    ),
    others={
        "DualBCT-Net": (37.1, None, None, None),
        "RaSa": (43.2, None, None, None),
        "PASS": (42.2, None, None, None),
        "CAL": (37.3, None, None, None),
        "DEEN": (29.4, None, None, None),
    },
)

TABLE_8 = ReidTable(
    8,
    "ablation, task-specific",
    "task-specific",
    (*SIX_TASKS, Column("average")),
    (
        Variant("IRM (STL)", IRM, False, (32.2, 30.7, 65.3, 66.6, 46.7, 92.3, 61.8)),
        Variant("w/o editing (STL)", IRM_PLAIN_VIT, False, (32.6, 30.5, 65.7, 66.2, 46.2, 92.5, 61.5)),
        Variant("w/o adaptive triplet (STL)", IRM_PLAIN_TRIPLET, False, (31.5, 30.2, None, 66.6, 46.7, 92.3, 61.3)),
        Variant("IRM (MTL)", IRM, True, (41.7, 39.8, 66.5, 67.5, 52.0, 93.5, 65.1)),
        Variant("w/o editing (MTL)", IRM_PLAIN_VIT, True, (41.0, 38.8, 66.1, 67.3, 51.2, 93.0, 64.5)),
        Variant("w/o adaptive triplet (MTL)", IRM_PLAIN_TRIPLET, True, (40.7, 39.2, 65.2, 68.4, 52.0, 92.9, 64.8)),
    ),
    note="the paper's average is over its eleven test sets, ours over the tasks",
)

TABLES: Mapping[int, ReidTable] = {table.number: table for table in (TABLE_5, TABLE_6, TABLE_7, TABLE_8)}
