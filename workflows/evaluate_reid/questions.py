"""Which questions a run asks in each setting, and what came out of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modeling.instruct_reid.instructions import TASKS, Task
from modeling.metrics.reid import Places
from modeling.metrics.retrieval import RetrievalScores, score_rankings
from workflows.evaluate_reid.config import EvaluateReidConfig, Setting
from workflows.evaluate_reid.encode import OWN_INSTRUCTION, feature_column
from workflows.evaluate_reid.places import Question

PAPER_MAP: Mapping[Setting, Mapping[str, float]] = {
    "task-specific": {"Trad": 93.5, "CC": 52.0, "CTCC": 41.7, "VI": 67.5, "T2I": 66.5, "LI": 39.8},
    "task-free": {"Trad": 93.3, "CC": 46.7, "CTCC": 35.3, "VI": 66.1, "T2I": 66.4, "LI": 37.3},
    "joint": {"all": 65.3},
}
"""The paper's mAP in percent, multi-task learning: IRM task-specific (Tables III-V), IRM++ task-free (Table VI) and
joint (Table VII), on Market1501, LTCC, COCAS+ Real2, LLCM (visible to infrared) and CUHK-PEDES."""


@dataclass(frozen=True)
class TaskScores:
    """One row of the result: a task (or "all") in one setting."""

    setting: Setting
    task: str
    scores: RetrievalScores
    mean_ap_at_tau: Mapping[float, float]

    def row(self) -> dict[str, float | int | str | None]:
        """Plain values, fractions of 1; `paper_mAP` in percent."""
        cmc = self.scores.cmc
        return {
            "setting": self.setting, "task": self.task, "queries": self.scores.num_scored,
            "mAP": self.scores.mean_ap, "mINP": self.scores.mean_inp,
            **{f"top{rank}": float(cmc[rank - 1]) for rank in (1, 5, 10) if rank <= len(cmc)},
            **{f"mAP{round(100 * tau)}": value for tau, value in self.mean_ap_at_tau.items()},
            "paper_mAP": PAPER_MAP[self.setting].get(self.task),
        }  # fmt: skip


def questions_of(setting: Setting, tasks_of_queries: Sequence[str], asked: Sequence[Task]) -> list[Question]:
    """One question for each task that has queries, in the order of tasks."""
    names = np.array(tasks_of_queries)
    return [
        Question(
            task=task, rows=rows, feature=feature_column(task if setting == "task-specific" else None),
            own_instruction=OWN_INSTRUCTION.get(task), is_joint=setting == "joint",
        )
        for task in TASKS
        if task in asked and len(rows := np.flatnonzero(names == task))
    ]  # fmt: skip


def score_setting(
    setting: Setting, places: Mapping[Task, Sequence[Places]], config: EvaluateReidConfig
) -> list[TaskScores]:
    """The scores of each task, and of all queries together in the joint setting (Table VII)."""
    rows = [_score(setting, task, own, config) for task, own in places.items()]
    if setting == "joint":
        rows.append(_score(setting, "all", [one for own in places.values() for one in own], config))
    return rows


def _score(setting: Setting, task: str, places: Sequence[Places], config: EvaluateReidConfig) -> TaskScores:
    whole = score_rankings((one.ranking() for one in places), max_rank=config.max_rank, ap_length=config.ap_top)
    at_tau = {
        tau: score_rankings((one.ranking(tau=tau) for one in places), ap_length=config.ap_top).mean_ap
        for tau in config.taus
    }
    return TaskScores(setting, task, whole, at_tau)


def table_lines(rows: Sequence[TaskScores]) -> list[str]:
    """The result as a table of text, percent, with the paper's mAP beside ours."""
    taus = list(rows[0].mean_ap_at_tau) if rows else []
    head = ["setting", "task", "queries", "mAP", "top-1", "top-10", "mINP", *(f"mAP{round(100 * t)}" for t in taus)]
    lines = [[*head, "paper mAP"]]
    for one in rows:
        paper = PAPER_MAP[one.setting].get(one.task)
        cmc = one.scores.cmc
        values = [one.scores.mean_ap, cmc[0], cmc[min(9, len(cmc) - 1)], one.scores.mean_inp]
        values += [one.mean_ap_at_tau[tau] for tau in taus]
        shown = [f"{100 * value:.1f}" for value in values]
        lines.append([one.setting, one.task, str(one.scores.num_scored), *shown, "-" if paper is None else str(paper)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
