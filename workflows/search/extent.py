"""What an archive covers, by its manifest alone, and whether a search's filter can find any of it."""

from dataclasses import dataclass

from modeling.errors import DataError
from workflows.index.filter import FrameFilter
from workflows.index.inputs import StepInput

MOST_CAMERAS_NAMED = 12


@dataclass(frozen=True)
class Coverage:
    """Of a frames or an index step."""

    cameras: tuple[str, ...]
    first: str | None
    """Moment of the earliest frame, ISO 8601 in UTC; None where no frame tells."""
    last: str | None
    num_without_clock: int
    """Rows in parts of which nothing tells when they were recorded."""

    def __str__(self) -> str:
        more = " and more" if len(self.cameras) > MOST_CAMERAS_NAMED else ""
        named = ", ".join(self.cameras[:MOST_CAMERAS_NAMED]) + more
        if self.first is None:
            return f"cameras {named}; no frame tells when it was recorded"
        unknown = f"; {self.num_without_clock} frames do not tell when" if self.num_without_clock else ""
        return f"cameras {named}, recorded from {self.first} to {self.last}{unknown}"


def coverage_of(step: StepInput) -> Coverage:
    """What the parts of a step say of themselves."""
    scopes = [(part.rows, part.scope or {}) for part in step.parts]
    cameras = sorted({camera for _, scope in scopes for camera in scope.get("cameras", ())})
    spans = [scope["recorded_at"] for _, scope in scopes if scope.get("recorded_at")]
    without = sum(rows for rows, scope in scopes if not scope.get("recorded_at"))
    first, last = min((span[0] for span in spans), default=None), max((span[1] for span in spans), default=None)
    return Coverage(tuple(cameras), first, last, without)


def check_filter(frames: StepInput, chosen: FrameFilter) -> None:
    """DataError when no part of the archive can hold a frame that counts."""
    if any(chosen.may_hold(part.scope) for part in frames.parts):
        return
    asked = ", ".join(f"{name} {value}" for name, value in chosen.described().items() if value not in (None, []))
    hint = "Widen the search"
    if (chosen.since or chosen.until) and coverage_of(frames).first is None:
        hint = "Ingest again into another folder with --start-times, which says where the times come from"
    raise DataError(f"no frame is left to search with {asked}: the archive has {coverage_of(frames)}. {hint}.")
