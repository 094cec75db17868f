"""`psreid bench recall`: exact top-k over float16 embeddings, beside faiss IndexFlatIP and the speed of the memory.

Ours cuts the rows into one range a thread and merges the ranges' best, as shards are merged in a search. faiss holds
float32, twice the bytes: it gets `FAISS_ROWS` at a time, built outside the clock, its seconds are added up, and of its
two ways (its own loops, BLAS) the faster one counts. Where the memory does not hold all rows, they are made up block by
block, outside the clock, and the seconds of both sides are added up. The memory's speed is that of summing the same
embeddings as whole numbers with the same threads.

Shapes: Q queries, N rows, D width, K found per query.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor

from modeling.errors import ConfigError
from modeling.topk import TopFrames, merge_top_frames, top_k_frames
from modeling.topk_filter import choose_engine
from workflows.bench.config import BenchConfig
from workflows.progress import Progress

FAISS_ROWS = 500_000  # of one faiss index: 1 GB at width 512, twice that while it is built
FAISS_LOOPS_BELOW = 20  # queries; from here on faiss itself takes BLAS, and its own loops only lose
FREE_SHARE = 0.6  # of the free memory that embeddings may take
MADE_ROWS = 16_384  # made up at a time
NUM_IDENTITIES, NUM_DEVIATIONS = 20_000, 30_000
LIKENESS = 0.5  # cosine of two rows of one identity, about
LARGEST_STREAM_BYTES = 4 << 30
SEED = 0
Found = TypeVar("Found")


@dataclass(frozen=True)
class RecallTiming:
    """One number of queries against one number of rows."""

    rows: int
    num_queries: int
    engine: str
    """Number format of the pass that comes before exact scoring."""
    seconds: float
    faiss_seconds: float | None
    """None where faiss is not installed."""
    same_rows: float | None
    """Share of our rows that faiss found as well; its float32 sums may order near ties otherwise."""
    bytes_read: int
    """Of the embeddings, each once."""

    @property
    def ratio(self) -> float | None:
        return self.faiss_seconds / self.seconds if self.faiss_seconds else None

    @property
    def ms_per_query(self) -> float:
        return 1e3 * self.seconds / self.num_queries


@dataclass(frozen=True)
class RecallBench:
    """All timings and what they were made with."""

    threads: int
    dim: int
    top: int
    resident_rows: int
    """Rows in memory at a time; fewer than searched: blocks, whose seconds are added up."""
    stream_gb_per_s: float
    timings: Sequence[RecallTiming]

    def memory_share(self, timing: RecallTiming) -> float:
        """Bytes of the embeddings over the seconds, as a share of the memory's speed."""
        return timing.bytes_read / timing.seconds / 1e9 / self.stream_gb_per_s


def bench_recall(config: BenchConfig, progress: Progress) -> RecallBench:
    """Times every number of rows with every number of queries. ConfigError when the memory is too small."""
    threads = config.threads or os.cpu_count() or 1
    resident = _resident_rows(max(config.rows), config)
    faiss = _import_faiss(progress)
    timings: list[RecallTiming] = []
    stream = 0.0
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        search = Search(config, pool, threads, faiss)
        for num_rows in sorted(config.rows):
            for start in range(0, num_rows, resident):
                stop = min(start + resident, num_rows)
                progress.say(f"bench recall: rows {start} to {stop} of {num_rows}")
                rows_ND = make_embeddings(start, stop, config.dim, pool)
                stream = max([stream, *(_stream_bytes_per_s(rows_ND, pool, threads) for _ in range(config.repeats))])
                search.time_block(rows_ND, start)
                del rows_ND
            timings += (done := search.finish(num_rows))
            for t in done:
                faiss_s = f", faiss {t.faiss_seconds:.3f} s" if t.faiss_seconds else ""
                progress.say(f"bench recall: {t.rows} rows, {t.num_queries} queries: {t.seconds:.3f} s{faiss_s}")
    return RecallBench(threads, config.dim, config.top, resident, stream / 1e9, timings)


class Search:
    """Times both sides on one block of rows after another."""

    def __init__(self, config: BenchConfig, pool: ThreadPoolExecutor, threads: int, faiss: ModuleType | None) -> None:
        self._config, self._pool, self._threads, self._faiss = config, pool, threads, faiss
        self._queries_QD = make_rows(torch.Generator().manual_seed(SEED + 1), max(config.queries), config.dim)
        self._seconds: dict[tuple[int, str], float] = defaultdict(float)
        self._found: dict[int, list[TopFrames]] = defaultdict(list)
        self._faiss_found: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def time_block(self, rows_ND: Tensor, start: int) -> None:
        """Searches rows that begin with ordinal `start`."""
        for num_queries in self._config.queries:
            queries_QD = self._queries_QD[:num_queries]
            seconds, found = _fastest(
                lambda q=queries_QD: search_rows(q, rows_ND, self._config.top, self._pool, self._threads),  # type: ignore[misc]
                self._config.repeats,
            )
            self._seconds[num_queries, "ours"] += seconds
            self._found[num_queries].append(TopFrames(found.frames_QK + start, found.persons_QK, found.scores_QK))
        if self._faiss is not None:
            for first in range(0, len(rows_ND), FAISS_ROWS):
                self._time_faiss(self._faiss, rows_ND[first : first + FAISS_ROWS], start + first)

    def finish(self, num_rows: int) -> list[RecallTiming]:
        """The timings of all blocks together; starts anew."""
        timings = []
        for num_queries in sorted(self._config.queries):
            ours = merge_top_frames(self._found[num_queries]).frames_QK
            ways = [s for (queries, way), s in self._seconds.items() if queries == num_queries and way != "ours"]
            theirs = self._faiss_rows(num_queries)
            timings.append(
                RecallTiming(
                    rows=num_rows,
                    num_queries=num_queries,
                    engine=choose_engine(num_queries),
                    seconds=self._seconds[num_queries, "ours"],
                    faiss_seconds=min(ways, default=None),
                    same_rows=None if theirs is None else _share_found(ours, theirs),
                    bytes_read=2 * num_rows * self._config.dim,
                )
            )
        for record in (self._seconds, self._found, self._faiss_found):
            record.clear()
        return timings

    def _time_faiss(self, faiss: ModuleType, rows_ND: Tensor, start: int) -> None:
        faiss.omp_set_num_threads(self._threads)
        index = faiss.IndexFlatIP(rows_ND.shape[1])
        index.add(rows_ND.float().numpy())
        default = faiss.cvar.distance_compute_blas_threshold
        for num_queries in self._config.queries:
            queries = self._queries_QD[:num_queries].float().numpy()
            ways = {"BLAS": 1} | ({"own loops": num_queries + 1} if num_queries < FAISS_LOOPS_BELOW else {})
            for way, threshold in ways.items():
                faiss.cvar.distance_compute_blas_threshold = threshold
                seconds, (scores, rows) = _fastest(
                    lambda q=queries: index.search(q, min(self._config.top, index.ntotal)),  # type: ignore[misc]
                    self._config.repeats,
                )
                self._seconds[num_queries, way] += seconds
            self._faiss_found[num_queries].append((torch.from_numpy(scores), torch.from_numpy(rows) + start))
        faiss.cvar.distance_compute_blas_threshold = default

    def _faiss_rows(self, num_queries: int) -> Tensor | None:
        """(Q, K) rows that faiss found in all blocks."""
        if not self._faiss_found[num_queries]:
            return None
        scores_QC, rows_QC = (torch.cat(parts, dim=1) for parts in zip(*self._faiss_found[num_queries], strict=True))
        return rows_QC.gather(1, scores_QC.topk(min(self._config.top, scores_QC.shape[1]), dim=1).indices)


def search_rows(queries_QD: Tensor, rows_ND: Tensor, k: int, pool: ThreadPoolExecutor, threads: int) -> TopFrames:
    """The exact top-k rows of every query; each row is a frame of its own."""

    def search(start: int, stop: int) -> TopFrames:
        ordinals_N = torch.arange(stop - start)
        found = top_k_frames(queries_QD, rows_ND[start:stop], ordinals_N, num_frames=stop - start, k=k)
        return TopFrames(found.frames_QK + start, found.persons_QK + start, found.scores_QK)

    return merge_top_frames(list(pool.map(lambda bounds: search(*bounds), _ranges(len(rows_ND), threads))))


def make_embeddings(start: int, stop: int, dim: int, pool: ThreadPoolExecutor) -> Tensor:
    """(stop - start, D) float16 unit rows, the same whatever the blocks, which begin at multiples of `MADE_ROWS`."""
    rows_ND = torch.empty((stop - start, dim), dtype=torch.float16)

    def fill(first: int) -> None:
        block = rows_ND[first - start : first - start + MADE_ROWS]
        block.copy_(make_rows(torch.Generator().manual_seed(SEED + 2 + first), len(block), dim))

    list(pool.map(fill, range(start, stop, MADE_ROWS)))
    return rows_ND


def make_rows(generator: torch.Generator, count: int, dim: int) -> Tensor:
    """(count, D) float16 unit rows: a random identity, and a random deviation from it out of a stock of both."""
    centres_ID, deviations_MD = _stock(dim)
    rows_ND = centres_ID[torch.randint(NUM_IDENTITIES, (count,), generator=generator)]
    rows_ND += deviations_MD[torch.randint(NUM_DEVIATIONS, (count,), generator=generator)]
    return torch.nn.functional.normalize(rows_ND, dim=1).half()


@lru_cache(1)
def _stock(dim: int) -> tuple[Tensor, Tensor]:
    """Normal numbers, so that two rows of one identity have a cosine of about `LIKENESS`, two of others about 0."""
    generator = torch.Generator().manual_seed(SEED)
    centres_ID = torch.randn((NUM_IDENTITIES, dim), generator=generator).mul_(LIKENESS**0.5)
    deviations_MD = torch.randn((NUM_DEVIATIONS, dim), generator=generator).mul_((1 - LIKENESS) ** 0.5)
    return centres_ID, deviations_MD


def recall_table(bench: RecallBench) -> list[str]:
    """Lines for a person."""
    lines = [
        f"{bench.threads} threads, width {bench.dim}, top {bench.top}; memory: {bench.stream_gb_per_s:.1f} GB/s; "
        f"{bench.resident_rows:,} rows at a time",
        f"{'rows':>11} {'Q':>4} {'seconds':>9} {'ms a query':>11} {'faiss s':>9} {'ratio':>7} {'of memory':>10} "
        f"{'same rows':>10}  first pass",
    ]
    for t in bench.timings:
        faiss = f"{t.faiss_seconds:9.3f} {t.ratio:7.2f}" if t.faiss_seconds is not None else f"{'-':>9} {'-':>7}"
        same = f"{t.same_rows:10.2%}" if t.same_rows is not None else f"{'-':>10}"
        lines.append(
            f"{t.rows:>11,} {t.num_queries:>4} {t.seconds:9.3f} {t.ms_per_query:11.2f} {faiss} "
            f"{bench.memory_share(t):10.0%} {same}  {t.engine}"
        )
    note = "ratio: faiss IndexFlatIP over ours. of memory: bytes of the embeddings over the seconds, against a sum."
    return [*lines, note, f"faiss holds float32, {FAISS_ROWS:,} rows at a time; its seconds are added up.", ""]


def recall_record(bench: RecallBench) -> dict[str, Any]:
    """The same for a machine."""
    rows = [
        asdict(t) | {"ratio": t.ratio, "ms_per_query": t.ms_per_query, "memory_share": bench.memory_share(t)}
        for t in bench.timings
    ]
    return {name: value for name, value in asdict(bench).items() if name != "timings"} | {"recall": rows}


def _ranges(count: int, parts: int) -> list[tuple[int, int]]:
    edges = [count * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def _fastest(call: Callable[[], Found], repeats: int) -> tuple[float, Found]:
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        found = call()
        best = min(best, time.perf_counter() - started)
    return best, found


def _stream_bytes_per_s(rows_ND: Tensor, pool: ThreadPoolExecutor, threads: int) -> float:
    """How fast these threads read the embeddings when they only add them up."""
    size = min(rows_ND.numel() * 2, LARGEST_STREAM_BYTES) // 8
    numbers = rows_ND.view(-1)[: size * 4].view(torch.int64)
    started = time.perf_counter()
    list(pool.map(lambda bounds: numbers[slice(*bounds)].sum(), _ranges(size, threads)))
    return 8 * size / (time.perf_counter() - started)


def _share_found(ours_QK: Tensor, theirs_QK: Tensor) -> float:
    shares = [len(set(a) & set(b)) / len(a) for a, b in zip(ours_QK.tolist(), theirs_QK.tolist(), strict=True)]
    return sum(shares) / len(shares)


def _import_faiss(progress: Progress) -> ModuleType | None:
    try:
        import faiss
    except ImportError:
        progress.say("bench recall: faiss is not installed, so there is no ratio. pip install faiss-cpu")
        return None
    return faiss


def _resident_rows(most: int, config: BenchConfig) -> int:
    """How many rows are in memory at a time."""
    free = psutil.virtual_memory().available
    for_faiss = 8 * config.dim * min(most, FAISS_ROWS)
    allowed = config.memory_gb * 1e9 if config.memory_gb is not None else FREE_SHARE * (free - for_faiss)
    rows = int(allowed) // (2 * config.dim)
    if rows >= most:
        return most
    if rows < MADE_ROWS:
        raise ConfigError(
            f"{free / 1e9:.1f} GB of memory are free: too few for faiss's {for_faiss / 1e9:.1f} GB and {MADE_ROWS} "
            f"rows of width {config.dim}. Free some, or give fewer rows: --rows 100000."
        )
    return rows // MADE_ROWS * MADE_ROWS
