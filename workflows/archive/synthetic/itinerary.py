"""When and where people walk past a camera.

A camera's timeline is a row of slots, one track each. Slot k, its person and its path follow from the seed and k, so
any frame can be drawn alone, and memory does not grow with the length of the archive.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from workflows.archive.synthetic.camera import Camera
from workflows.archive.synthetic.config import SynthConfig
from workflows.archive.synthetic.population import SECOND_CLOTHES_SHARE, make_person, population, stream
from workflows.archive.synthetic.scene import Placed
from workflows.archive.synthetic.taxonomy import Identity

MEAN_TRACK_S = 9.0
LONGEST_TRACK_S = 22.0
FARTHEST_HEIGHT = 0.14  # of the picture, how tall the smallest persons are
STANDING_SPEED = 0.2  # m/s, below which nobody strides


@dataclass(frozen=True)
class Track:
    """One person's walk past one camera."""

    number: int
    person: tuple[str, int]  # split and number
    clothes: int
    start_s: float
    speed: float  # m/s
    points_m: tuple[tuple[float, float], ...]  # (across, away) on the ground
    pause: tuple[float, float, float]  # metres of way before it, seconds, heading in degrees while standing
    sway_m: float
    phase: float

    def length_m(self) -> float:
        steps = np.diff(np.array(self.points_m), axis=0)
        return float(np.hypot(steps[:, 0], steps[:, 1]).sum())

    @property
    def duration_s(self) -> float:
        return min(self.length_m() / self.speed + self.pause[1], LONGEST_TRACK_S)


@dataclass
class Timeline:
    """All tracks of one camera, made on demand."""

    seed: int
    camera_number: int
    camera: Camera
    people: Sequence[tuple[str, int]]
    density: float  # persons at a time, on average
    second_clothes_share: float = SECOND_CLOTHES_SHARE
    _tracks: dict[int, Track] = field(default_factory=dict)

    @classmethod
    def of(cls, config: SynthConfig, camera_number: int, camera: Camera) -> "Timeline":
        """The timeline of a camera of an archive."""
        people = population(config.seed, config.split, config.identities)
        return cls(config.seed, camera_number, camera, people, config.density, config.second_clothes_share)

    def tracks_until(self, time_s: float) -> Iterator[Track]:
        """Every track that starts before a moment."""
        interval = self.interval_s
        for number in range(int((time_s + LONGEST_TRACK_S) / interval) + 1):
            track = self._track(number, interval)
            if track.start_s < time_s:
                yield track

    @property
    def interval_s(self) -> float:
        """Seconds between tracks; few people cannot make a crowd, as nobody is in one picture twice."""
        crowd = self.density * stream("camera", self.seed, self.camera_number, 1).uniform(0.7, 1.35)
        return float(max(MEAN_TRACK_S / crowd, 2 * (LONGEST_TRACK_S + 2) / len(self.people)))

    def active(self, time_s: float) -> list[Track]:
        """Tracks that are under way at a moment."""
        interval = self.interval_s
        last = int(np.floor((time_s + LONGEST_TRACK_S) / interval))
        first = int(np.floor(time_s / interval)) - 1
        tracks = [self._track(number, interval) for number in range(first, last + 1) if number >= 0]
        return [track for track in tracks if 0 <= time_s - track.start_s < track.duration_s]

    def placed(self, time_s: float) -> list[tuple[Track, Placed]]:
        """Everybody in front of the camera at a moment."""
        return [(track, self._place(track, time_s)) for track in self.active(time_s)]

    def _place(self, track: Track, time_s: float) -> Placed:
        person = make_person(self.seed, *track.person, self.second_clothes_share)
        return place(track, person.wardrobe[track.clothes], self.camera, time_s)

    def _track(self, number: int, interval: float) -> Track:
        if number not in self._tracks:
            for old in [key for key in self._tracks if key < number - 400]:
                del self._tracks[old]
            rng = stream("track", self.seed, self.camera_number, number)
            start = (number + 0.8 * float(rng.random())) * interval - LONGEST_TRACK_S
            person = self._person_of(number)
            num_clothes = len(make_person(self.seed, *person, self.second_clothes_share).wardrobe)
            self._tracks[number] = _sample_track(self.camera, number, person, start, num_clothes, rng)
        return self._tracks[number]

    def _person_of(self, number: int) -> tuple[str, int]:
        """Everybody comes by once a round; rounds are shuffled within halves, so that nobody returns at once."""
        count = len(self.people)
        round_number, position = divmod(number, count)
        order = stream("order", self.seed, self.camera_number).permutation(count)
        half = (count + 1) // 2
        part = order[:half] if position < half else order[half:]
        shuffled = stream("order", self.seed, self.camera_number, round_number + 1, int(position >= half)).permutation(
            part
        )
        return self.people[int(shuffled[position if position < half else position - half])]


def place(track: Track, identity: Identity, camera: Camera, time_s: float) -> Placed:
    """Where a track is at a moment, and in which phase of its gait."""
    before_m, pause_s, standing_heading = track.pause
    moving_s = time_s - track.start_s
    pause_start = before_m / track.speed
    is_standing = pause_s > 0 and pause_start <= moving_s < pause_start + pause_s
    if moving_s >= pause_start:
        moving_s = max(pause_start, moving_s - pause_s)
    way = track.speed * moving_s
    (x, y), (dx, dy) = _along(track, way)
    cycle_m = 2 * 0.43 * identity.look.height_m * identity.look.stride
    heading = float(np.degrees(np.arctan2(dx, -dy)))
    return Placed(
        identity, f"{camera.camera_id}/{track.number:06d}", x, y,
        heading_deg=standing_heading if is_standing else heading, phase=(track.phase + way / cycle_m) % 1.0,
        stride=0.0 if is_standing else min(1.0, 0.55 + 0.35 * track.speed), speed=0.0 if is_standing else track.speed,
    )  # fmt: skip


def _along(track: Track, way_m: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Position and direction after some metres of a polyline, with a slight sway."""
    points = np.array(track.points_m)
    steps = np.diff(points, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    run = np.concatenate([[0.0], np.cumsum(lengths)])
    leg = int(np.clip(np.searchsorted(run, way_m, side="right") - 1, 0, len(lengths) - 1))
    direction = steps[leg] / lengths[leg]
    angle = 0.35 * track.sway_m * np.cos(way_m * 0.9 + track.phase * 6)
    aside = np.array([-direction[1], direction[0]]) * track.sway_m * np.sin(way_m * 0.9 + track.phase * 6)
    x, y = points[leg] + direction * (way_m - run[leg]) + aside
    turned = (
        direction[0] * np.cos(angle) - direction[1] * np.sin(angle),
        direction[0] * np.sin(angle) + direction[1] * np.cos(angle),
    )
    return (float(x), float(y)), (float(turned[0]), float(turned[1]))


def _sample_track(
    camera: Camera, number: int, person: tuple[str, int], start_s: float, num_clothes: int, rng: np.random.Generator
) -> Track:
    near, far = depth_range(camera)
    kind = rng.random()
    depth = float(np.exp(rng.uniform(np.log(near), np.log(far))))
    is_crossing = kind < 0.62
    points = _crossing(camera, depth, near, far, rng) if is_crossing else _along_the_view(camera, near, far, rng)
    speed = float(np.clip(rng.normal(1.3, 0.2), 0.8, 1.9))
    track = Track(
        number, person, int(rng.integers(num_clothes)), start_s, speed, points, (0.0, 0.0, 0.0),
        float(rng.uniform(0.0, 0.18)), float(rng.random()),
    )  # fmt: skip
    if rng.random() < 0.14:
        pause = (float(rng.uniform(0.3, 0.7)) * track.length_m(), float(rng.uniform(2, 6)), float(rng.uniform(0, 360)))
        track = Track(**{**track.__dict__, "pause": pause})
    return track


def depth_range(camera: Camera) -> tuple[float, float]:
    """Nearest and farthest distance at which people walk: feet near the lower edge, or figures still worth seeing."""
    near = max(camera.away_at_row(camera.height * 1.02), 1.75 * camera.focal_px / (0.85 * camera.height))
    far = 1.72 * camera.focal_px / (FARTHEST_HEIGHT * camera.height)
    if camera.horizon_px < 0:  # a steep view: where the upper edge would cut heads off
        far = min(far, camera.focal_px * (camera.mount_m - 1.75) / -camera.horizon_px)
    return near, max(far, near * 1.3)


def _half_width(camera: Camera, away_m: float) -> float:
    return 0.5 * camera.width / camera.focal_px * away_m


def _crossing(
    camera: Camera, depth: float, near: float, far: float, rng: np.random.Generator
) -> tuple[tuple[float, float], ...]:
    sign = 1.0 if rng.random() < 0.5 else -1.0
    end_depth = float(np.clip(depth * np.exp(rng.normal(0, 0.25)), near, far))
    middle = float(np.clip((depth + end_depth) / 2 * np.exp(rng.normal(0, 0.1)), near, far))
    return (
        (-sign * (_half_width(camera, depth) + 0.4), depth),
        (float(rng.uniform(-0.3, 0.3)) * _half_width(camera, middle), middle),
        (sign * (_half_width(camera, end_depth) + 0.4), end_depth),
    )


def _along_the_view(
    camera: Camera, near: float, far: float, rng: np.random.Generator
) -> tuple[tuple[float, float], ...]:
    far = min(far, near + 16)
    first = (float(rng.uniform(-0.7, 0.7)) * _half_width(camera, far), far)
    last = (float(rng.uniform(-0.7, 0.7)) * _half_width(camera, near), near * 0.95)
    return (first, last) if rng.random() < 0.5 else (last, first)
