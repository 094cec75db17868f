"""The paper's tables as lists of variants: how each is trained and measured here, and the paper's figures for it.

PS-ReID, §V: Table II (comparison), III (training strategy), IV (query modality), V (loss terms). The figures are
percent, in the paper's order gIoU, cIoU, top-1, mAP. Pure data: `table.py` runs and prints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workflows.evaluate.config import Modality
from workflows.storage import JSON

METRICS = ("giou", "ciou", "top1", "mAP")
Figures = tuple[float | None, float | None, float | None, float | None]
ADAPTERS = ("query_adapter", "target_adapter", "place", "control_tokens", "metric", "grounding")
"""With what no pretraining has: the new tokens, our metric, and our head that points to persons."""
PIXEL_DECODER = ("mask_decoder", "mask_prompt")


@dataclass(frozen=True)
class Variant:
    """One row of ours."""

    name: str
    training: Mapping[str, JSON] = field(default_factory=dict)
    """Dotted settings of `psreid train psreid` that differ from the shared ones; only where the table is trained."""
    evaluation: Mapping[str, JSON] = field(default_factory=dict)
    """Settings of `psreid evaluate` that differ."""
    modality: Modality = "both"
    """What is left of the queries; variants that differ in nothing else are measured in one pass."""
    paper: Mapping[str, Figures] = field(default_factory=dict)
    """gallery -> the paper's figures of the same variant."""


@dataclass(frozen=True)
class PaperTable:
    """One table."""

    number: int
    title: str
    galleries: Sequence[str]
    variants: Sequence[Variant]
    is_trained: bool = False
    """Whether each variant is a training of its own, one for each seed."""
    others: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    """Rows of the paper without a counterpart here."""


def _sizes(*rows: Figures) -> dict[str, Figures]:
    return dict(zip(("TestG50", "TestG100", "TestG500"), rows, strict=True))


def _g100(giou: float, ciou: float, top1: float, mean_ap: float) -> dict[str, Figures]:
    return {"TestG100": (giou, ciou, top1, mean_ap)}


TABLE_2 = PaperTable(
    2,
    "person search and segmentation",
    ("TestG50", "TestG100", "TestG500"),
    (
        Variant("PS-ReID, separated attention", evaluation={"attention": "separated"}),
        Variant("PS-ReID, joint attention", evaluation={"attention": "joint"}),
        Variant("recall stage alone, frames by best person", evaluation={"ranking": "recall"}),
        Variant("colour histogram, frames by best person", evaluation={"ranking": "histogram"}),
    ),
    others={
        "SEEM": _sizes((23.6, 37.2, None, None), (17.2, 30.8, None, None), (6.2, 13.7, None, None)),
        "LISA-7B (fine-tuned)": _sizes((17.4, 17.6, 12.5, 19.4), (12.8, 12.9, 10.3, 13.0), (7.8, 7.6, 6.5, 8.9)),
        "GSVA-7B (fine-tuned)": _sizes((18.0, 18.6, 24.1, 21.7), (15.4, 15.7, 20.8, 17.4), (11.6, 12.0, 16.4, 14.4)),
        "PS-ReID-7B": _sizes((31.9, 33.0, 40.3, 29.3), (29.8, 31.2, 36.3, 27.7), (20.0, 21.4, 24.6, 22.1)),
        "LISA-13B (fine-tuned)": _sizes(
            (21.6, 21.5, 19.2, 26.8), (19.8, 19.9, 17.1, 23.4), (12.5, 12.4, 9.8, 11.6)
        ),
        "GSVA-13B (fine-tuned)": _sizes(
            (27.6, 28.1, 34.0, 30.8), (23.7, 24.0, 28.4, 26.9), (18.2, 18.5, 20.7, 17.1)
        ),
        "PS-ReID-13B": _sizes((57.6, 52.1, 81.2, 66.3), (54.7, 50.8, 80.0, 65.5), (39.8, 39.4, 72.1, 60.0)),
    },
)  # fmt: skip

TABLE_3 = PaperTable(
    3,
    "training strategy",
    ("TestG100",),
    (
        Variant("adapters", training={"stage2.trains": ADAPTERS}, paper=_g100(37.1, 37.6, 58.1, 42.0)),
        Variant(
            "adapters, mask decoder",
            training={"stage2.trains": (*ADAPTERS, *PIXEL_DECODER)},
            paper=_g100(50.2, 46.7, 75.3, 56.8),
        ),
        Variant("adapters, mask decoder, LoRA", paper=_g100(54.7, 50.8, 80.0, 65.5)),
    ),
    is_trained=True,
)

TABLE_4 = PaperTable(
    4,
    "query modality",
    ("TestG100",),
    (
        Variant("text only", modality="text", paper=_g100(30.0, 31.3, 45.9, 30.9)),
        Variant("image only", modality="image", paper=_g100(42.6, 39.1, 66.0, 53.4)),
        Variant("text and image", paper=_g100(54.7, 50.8, 80.0, 65.5)),
    ),
)

TABLE_5 = PaperTable(
    5,
    "loss terms",
    ("TestG100",),
    (
        Variant("smooth L1, CIoU (no ReID)", training={"losses.reid": 0.0}, paper=_g100(45.4, 43.5, 68.7, 50.1)),
        Variant(
            "ReID", training={"losses.smooth_l1": 0.0, "losses.ciou": 0.0}, paper=_g100(52.2, 48.7, 76.2, 62.4)
        ),
        Variant("ReID, smooth L1", training={"losses.ciou": 0.0}, paper=_g100(53.6, 49.9, 77.5, 63.4)),
        Variant("ReID, smooth L1, CIoU", paper=_g100(54.7, 50.8, 80.0, 65.5)),
    ),
    is_trained=True,
)  # fmt: skip

TABLES: Mapping[int, PaperTable] = {table.number: table for table in (TABLE_2, TABLE_3, TABLE_4, TABLE_5)}
