"""Settings of `psreid report`."""

from typing import Annotated

from pydantic import Field

from workflows.config import StepConfig


class ReportConfig(StepConfig):
    """What to show of a search, and how much of it."""

    matches: str
    """Folder that `psreid search` wrote."""
    out: str
    """Folder for the report."""
    frames: str | None = None
    """Folder of the frames that were searched; by default where the search found them."""
    queries: str | None = None
    """Folder of the queries that the search kept; by default `queries` in the folder of matches."""
    title: Annotated[str, Field(min_length=1)] = "Person search"
    """What stands at the top of the page."""

    inline_matches: Annotated[int, Field(ge=0)] = 300
    """With at most so many matches and near misses the page is one file that holds its pictures; with more, they lie in
    a folder beside it."""
    max_shown: Annotated[int, Field(ge=1)] = 50_000
    """Matches on the page, over all queries; each query keeps its best ones. The CSV and COCO files hold all."""
    near_misses: Annotated[int, Field(ge=0)] = 12
    """Rejected frames with the highest scores that can be unfolded, per query; fewer when there are many queries."""
    sighting_gap_s: Annotated[float, Field(ge=0)] = 3.0
    """Matches of one video that follow each other within so many seconds are one sighting."""
    picture_px: Annotated[int, Field(ge=64)] = 960
    """Longer side of the page's frame pictures, pixels; smaller frames keep their size."""
    copy_frames: bool = True
    """Whether the original pictures of the matched frames are copied to OUT/frames, for FiftyOne, CVAT and the page's
    large view."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Frames prepared at once; by default one per core, at most 8."""
