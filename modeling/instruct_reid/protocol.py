"""How each of the six tasks is scored: what a match is, and which pictures make the task's own gallery."""

from modeling.instruct_reid.instructions import Task
from modeling.metrics.reid import MatchRule

TASK_RULES: dict[Task, MatchRule] = {
    "Trad": MatchRule(clothes="same", gallery="rgb"),
    "CC": MatchRule(clothes="different", gallery="rgb"),
    "CTCC": MatchRule(clothes="same", gallery="rgb"),
    "VI": MatchRule(clothes="same", modality="other", gallery="other"),
    "T2I": MatchRule(clothes="same", same_camera_is_junk=False, gallery="rgb"),
    "LI": MatchRule(clothes="same", gallery="rgb"),
}
"""Clothes are those the query names: its own for Trad, CC, VI and T2I, those asked for in CTCC and LI. The query's own
camera is junk, as in Market-1501 and LTCC; a description (T2I) comes from no camera."""
