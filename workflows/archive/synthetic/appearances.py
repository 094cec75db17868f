"""One pass over the truth of an archive: where each test identity can be found, in memory that depends on people alone.

Of every identity a few appearances per track are kept, chosen by a hash, so the choice is fair, repeatable and
independent of the order of reading.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

APPEARANCES_PER_TRACK = 10
TRACKS_PER_IDENTITY = 40


@dataclass(frozen=True, order=True)
class Appearance:
    """One person in one frame."""

    ticket: int  # a hash: the smaller, the earlier it is chosen
    frame_id: str
    camera_id: str
    timestamp_s: float
    modality: str
    track_id: str
    identity: str
    clothes_id: str
    box_xyxy_px: tuple[float, float, float, float]
    visibility: float
    text: str
    part: str  # the file that holds the frame

    @property
    def height_px(self) -> float:
        return self.box_xyxy_px[3] - self.box_xyxy_px[1]


@dataclass
class Album:
    """Chosen appearances of each identity, by track."""

    seed: int
    tracks: dict[str, dict[str, list[Appearance]]] = field(default_factory=dict)

    def add(self, table: pa.Table, part: str) -> None:
        """Takes the appearances of test identities from some rows of the frames table."""
        columns = table.select(["frame_id", "camera_id", "timestamp_s", "modality", "persons"]).to_pylist()
        for row in columns:
            for person in row["persons"]:
                if person["identity"].startswith("test-"):
                    self._keep(self._appearance(row, person, part))

    def of(self, identity: str) -> list[Appearance]:
        """The kept appearances of an identity in order of their tickets."""
        return sorted(appearance for kept in self.tracks.get(identity, {}).values() for appearance in kept)

    def identities(self) -> list[str]:
        return sorted(self.tracks)

    def _appearance(self, row: Mapping[str, Any], person: Mapping[str, Any], part: str) -> Appearance:
        key = f"{self.seed}|{row['frame_id']}|{person['identity']}"
        ticket = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
        box = person["box_xyxy_px"]
        return Appearance(
            ticket=ticket,
            frame_id=row["frame_id"],
            camera_id=row["camera_id"],
            timestamp_s=row["timestamp_s"],
            modality=row["modality"],
            track_id=person["track_id"],
            identity=person["identity"],
            clothes_id=person["clothes_id"],
            box_xyxy_px=(box[0], box[1], box[2], box[3]),
            visibility=person["score"],
            text=person["text"],
            part=part,
        )

    def _keep(self, appearance: Appearance) -> None:
        tracks = self.tracks.setdefault(appearance.identity, {})
        kept = tracks.setdefault(appearance.track_id, [])
        kept.append(appearance)
        kept.sort()
        del kept[APPEARANCES_PER_TRACK:]
        if len(tracks) > TRACKS_PER_IDENTITY:
            worst = max(tracks, key=lambda track: tracks[track][0])
            del tracks[worst]
