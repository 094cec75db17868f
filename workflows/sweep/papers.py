"""What the papers themselves say of the settings that are swept: the points they print, and the values they chose.

Only numbers that stand in the text or a table are points; a curve that exists as a picture alone is told in words.
Percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PS_REID, IRM = "PS-ReID", "Instruct-ReID++"
TABLE_V = "Table V: PS-ReID-13B, TestG100; a loss left out has weight 0"


@dataclass(frozen=True)
class Published:
    """One setting in its paper."""

    symbol: str
    paper: str
    chosen: float | None = None
    """The value that the paper trains with."""
    tried: tuple[float, float] | None = None
    """Smallest and largest value that its ablation tries."""
    points: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """(value of the setting, score in percent) by name of the score."""
    source: str = ""
    """Where the points stand."""
    words: str = ""
    """What the paper says of it."""


PUBLISHED: Mapping[str, Mapping[str, Published]] = {
    "psreid": {
        "losses.reid": Published(
            "λ_reid",
            PS_REID,
            chosen=1.0,
            points={"mAP": [(0.0, 50.1), (1.0, 65.5)], "top-1": [(0.0, 68.7), (1.0, 80.0)]},
            source=TABLE_V,
            words="Without the ReID loss all scores drop; its weight is fixed at 1 and no other is tried.",
        ),
        "losses.tau": Published(
            "τ", PS_REID, words="Eq. 9 has τ as the sharpness of the margin. The paper names no value and tries none."
        ),
        "losses.smooth_l1": Published(
            "λ_smooth",
            PS_REID,
            chosen=1.0,
            points={"mAP": [(0.0, 62.4), (1.0, 63.4)], "top-1": [(0.0, 76.2), (1.0, 77.5)]},
            source=f"{TABLE_V}; without the CIoU loss",
        ),
        "losses.ciou": Published(
            "λ_ciou",
            PS_REID,
            chosen=1.0,
            points={"mAP": [(0.0, 63.4), (1.0, 65.5)], "top-1": [(0.0, 77.5), (1.0, 80.0)]},
            source=TABLE_V,
        ),
        "losses.wbce": Published("λ_wbce", PS_REID, chosen=2.0, words="Fixed at 2 (§V-A.4)."),
        "stage1.learning_rate": Published("rate of stage 1", PS_REID, chosen=3e-4, words="§V-A.4."),
        "stage2.learning_rate": Published("rate of stage 2", PS_REID, chosen=3e-5, words="§V-A.4."),
    },
    "irm": {
        "alpha": Published(
            "α",
            IRM,
            chosen=3.0,
            words="Fig. 8 (a) varies the weight of the adaptive triplet loss (eq. 9) on CTCC-ReID and LI-ReID; the "
            "best results are at 3. The figure prints no numbers.",
        ),
    },
    "irmpp": {
        "beta": Published(
            "β",
            IRM,
            chosen=5.0,
            tried=(0.5, 20.0),
            words="Fig. 8 (b) varies the weight of the hard-label contrastive loss from 0.5 to 20. Best at 5 "
            "everywhere, except rank-1 on CTCC-ReID, where 1 is slightly better. The figure prints no numbers.",
        ),
    },
}


def published(training: str, setting: str) -> Published | None:
    """What the paper of that training says of a setting; None when it says nothing."""
    known = {
        name: entry
        for name, entries in PUBLISHED.items()
        if training.startswith(name)
        for name, entry in entries.items()
    }
    if setting in known:
        return known[setting]
    return known.get(setting.rpartition(".")[2])
