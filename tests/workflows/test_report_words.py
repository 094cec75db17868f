"""How the report says times, counts and findings; and which matches make one sighting."""

import numpy as np
import pytest

from workflows.report.selection import near_per_query, shown_per_query
from workflows.report.sightings import number_sightings
from workflows.report.words import clock, count, duration, timecode, trace, verdict


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "00:00"), (59.99, "00:59"), (220, "03:40"), (3600, "1:00:00"), (86399.5, "23:59:59")]
)
def test_clock_cuts_fractions(seconds: float, said: str) -> None:
    assert clock(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(17.5714, "00:00:17.571"), (0.9996, "00:00:01.000"), (3661.0005, "01:01:01.000"), (360000, "100:00:00.000")],
)
def test_timecode_rounds_to_the_millisecond_and_carries(seconds: float, said: str) -> None:
    assert timecode(seconds) == said


def test_trace_names_file_frame_and_time() -> None:
    assert trace("s3://bucket/cam/video.mp4", 123, 17.571) == "video.mp4 @ frame 123 (00:00:17.571)"
    assert trace("/photos/a b.jpg", 0, None) == "a b.jpg @ frame 0"


def test_verdict_in_plain_words() -> None:
    seen = {"frames": 12, "cameras": 3, "sightings": 4}
    assert verdict(**seen, first_s=12.4, last_s=220) == (
        "Seen in 12 frames on 3 cameras, in 4 separate sightings, first 00:12, last 03:40."
    )
    assert verdict(frames=1, cameras=1, sightings=1, first_s=5, last_s=5) == "Seen in 1 frame on 1 camera, at 00:05."
    assert verdict(frames=2, cameras=1, sightings=2, first_s=None, last_s=None).endswith("2 separate sightings.")
    assert verdict(frames=0, cameras=0, sightings=0, first_s=None, last_s=None) == "Not seen."


def test_counts_lists_and_durations() -> None:
    assert (count(1, "match", "matches"), count(12345, "match", "matches")) == ("1 match", "12,345 matches")
    assert [duration(s) for s in (0.84, 42, 200, 7500)] == ["0.8 s", "42 s", "3 min 20 s", "2 h 05 min"]


def test_sightings_equal_a_slow_walk() -> None:
    """The oracle walks each lane in time order and opens a sighting after every gap."""
    generator = np.random.default_rng(5)
    lanes, times = generator.integers(0, 4, 200), generator.uniform(0, 120, 200).round(1)
    numbers = number_sightings(lanes, times, gap=1.5)
    expected: dict[int, int] = {}
    sighting = -1
    for lane in range(4):
        before = None
        for place in sorted(np.flatnonzero(lanes == lane), key=lambda place: times[place]):
            if before is None or times[place] - before > 1.5:
                sighting += 1
            expected[int(place)], before = sighting, times[place]
    assert [expected[place] for place in range(200)] == numbers.tolist()


def test_matches_without_a_time_stand_alone() -> None:
    numbers = number_sightings(np.zeros(3, dtype=np.int64), np.array([np.nan, np.nan, 1.0]), gap=5)
    assert len(set(numbers.tolist())) == 3
    assert number_sightings(np.zeros(0, dtype=np.int64), np.zeros(0), gap=5).tolist() == []


@pytest.mark.parametrize("budget", [1, 7, 40, 99, 100, 1000])
def test_the_page_shows_as_many_as_fit(budget: int) -> None:
    counts = [50, 3, 0, 47]
    per_query = shown_per_query(counts, budget)
    fits = [cap for cap in range(1, 51) if sum(min(number, cap) for number in counts) <= budget]
    assert per_query == max(fits, default=1)  # at least the best match of each query


def test_near_misses_stay_a_small_share() -> None:
    assert near_per_query(4, 12, 50_000) == 12
    assert near_per_query(5000, 12, 50_000) == 2
    assert near_per_query(0, 12, 50_000) == 12
