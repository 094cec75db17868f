"""A step of three small stages over made-up rows, with poison on request: what the fault tests kill.

`python -m tests.faults.toy OUT --shards N ...` runs it as a driver process of its own.
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from modeling.errors import PsreidError, WeightsError
from workflows.ledger import Manifest, Shard, StepIdentity, make_shard_id
from workflows.progress import Progress
from workflows.runner import run_step
from workflows.stages import Resources, ShardBatch, StageSpec
from workflows.storage import Folder

ROWS_PER_SHARD = 8


class MakeRows:
    """The source: rows `number` 0..N of the shard, each with a payload of `image_bytes` bytes."""

    reads: tuple[str, ...] = ()
    writes = ("row_id", "number", "image")

    def __init__(self, image_bytes: int = 64, raise_at: Sequence[int] = (), die_at: Sequence[int] = ()) -> None:
        self.image_bytes, self.raise_at, self.die_at = image_bytes, set(raise_at), set(die_at)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        numbers = range(batch.shard.payload["start"], batch.shard.payload["stop"])
        for number in numbers:
            if number in self.raise_at:
                raise ValueError(f"row {number} cannot be decoded")
            if number in self.die_at:
                os._exit(1)
        images = [hashlib.sha256(str(n).encode()).digest() * (self.image_bytes // 32) for n in numbers]
        columns = {"row_id": [f"row-{n}" for n in numbers], "number": list(numbers), "image": images}
        return batch.with_table(pa.table(columns))

    def plan_rows(self, shard: Shard) -> list[Shard]:
        numbers = range(shard.payload["start"], shard.payload["stop"])
        return [Shard(f"row-{n}", {"start": n, "stop": n + 1}) for n in numbers]


class Square:
    """An actor stage: number -> square; drops multiples of 10."""

    reads = ("number",)
    writes = ("square",)

    def __init__(
        self, raise_at: Sequence[int] = (), die_at: Sequence[int] = (), weights: str = "", sleep_s: float = 0.0
    ) -> None:
        if weights:
            raise WeightsError(f"there are no weights at {weights}. Give the folder of a saved model.")
        self.raise_at, self.die_at, self.sleep_s = set(raise_at), set(die_at), sleep_s

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        time.sleep(self.sleep_s)
        numbers = batch.table["number"].to_pylist()
        for number in numbers:
            if number in self.raise_at:
                raise ValueError(f"row {number} has no square")
            if number in self.die_at:
                os._exit(1)
        kept = [index for index, number in enumerate(numbers) if number % 10]
        batch.drops["multiple_of_ten"] += len(numbers) - len(kept)
        squares = pa.array([number * number for number in numbers], pa.int64())
        return batch.with_table(batch.table.append_column("square", squares).take(pa.array(kept, pa.int64())))


class AddText:
    """A last stage that adds a column."""

    reads = ("square",)
    writes = ("text",)

    def __call__(self, batch: ShardBatch) -> ShardBatch:
        texts = pa.array([f"square {square}" for square in batch.table["square"].to_pylist()], pa.string())
        return batch.with_table(batch.table.append_column("text", texts))


def toy_shards(count: int) -> list[Shard]:
    spans = [(i * ROWS_PER_SHARD, (i + 1) * ROWS_PER_SHARD) for i in range(count)]
    return [
        Shard(make_shard_id("toy", start), {"start": start, "stop": stop}, rows_expected=ROWS_PER_SHARD)
        for start, stop in spans
    ]


def run_toy(out: str, *, shards: int, progress: Progress | None = None, **settings: Any) -> Manifest:
    """Runs the toy step; settings go to the stages (`source=`, `square=`, their `pool=`) or to run_step."""
    source, square, pool = settings.pop("source", {}), settings.pop("square", {}), settings.pop("pool", (1, 1))
    resources = Resources(cpus=1)
    return run_step(
        folder=Folder(out),
        identity=StepIdentity("toy", {"shards": shards}, {"numbers": "1"}, "1", 1),
        shards=toy_shards(shards),
        stages=[
            StageSpec(MakeRows, source, resources),
            StageSpec(Square, square, resources, pool=pool),
            StageSpec(AddText, {}, resources, pool=pool),
        ],
        max_quarantine_share=settings.pop("max_quarantine_share", 0.05),
        progress=progress or Progress(),
        **settings,
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--die-at", type=int, nargs="*", default=[])
    parser.add_argument("--raise-at", type=int, nargs="*", default=[])
    parser.add_argument("--sleep-s", type=float, default=0.0)
    parser.add_argument("--image-bytes", type=int, default=64)
    parser.add_argument("--weights", default="")
    options = parser.parse_args()
    square = {"die_at": options.die_at, "raise_at": options.raise_at}
    try:
        manifest = run_toy(
            options.out,
            shards=options.shards,
            source={"image_bytes": options.image_bytes},
            square=square | {"sleep_s": options.sleep_s, "weights": options.weights},
        )
    except PsreidError as error:
        print(f"toy: {error}", file=sys.stderr)
        return error.exit_code
    print(f"toy: {manifest.rows} rows, {manifest.quarantined} quarantined, drops {dict(manifest.drops)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
