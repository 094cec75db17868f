"""How times, counts and findings are said to a reader. Plain functions, no tables, no pages.

Times are seconds from the start of the source video; None where the source has no clock (a folder of images).
"""


def clock(seconds: float) -> str:
    """A moment for reading: "00:12", from one hour on "1:02:03". Fractions of a second are cut, not rounded."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def timecode(seconds: float) -> str:
    """A moment for tracing, to the millisecond: "00:00:17.571"."""
    milliseconds = round(seconds * 1000)
    whole, fraction = divmod(milliseconds, 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{fraction:03d}"


def duration(seconds: float) -> str:
    """A length of time: "0.8 s", "42 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 frame", "12,345 frames"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def file_name(uri: str) -> str:
    """The last part of a path or URI."""
    return uri.rstrip("/").rpartition("/")[2] or uri


def trace(video_uri: str, frame_index: int, timestamp_s: float | None) -> str:
    """Where a match is to be found again: "video.mp4 @ frame 123 (00:00:17.571)"."""
    moment = "" if timestamp_s is None else f" ({timecode(timestamp_s)})"
    return f"{file_name(video_uri)} @ frame {frame_index}{moment}"


def verdict(*, frames: int, cameras: int, sightings: int, first_s: float | None, last_s: float | None) -> str:
    """What was found of one query, as one sentence."""
    if not frames:
        return "Not seen."
    seen = f"Seen in {count(frames, 'frame')} on {count(cameras, 'camera')}"
    if sightings > 1:
        seen += f", in {sightings:,} separate sightings"
    if first_s is None or last_s is None:
        return f"{seen}."
    if clock(first_s) == clock(last_s):
        return f"{seen}, at {clock(first_s)}."
    return f"{seen}, first {clock(first_s)}, last {clock(last_s)}."
