"""`psreid bench judge`: pairs per second of the plain way, of `joint` and of `separated`, on the same pairs.

plain       one full Hugging Face forward per pair with its own vision encoding (`modeling/ps_reid/reference.py`)
joint       query prefixes computed once (the `Judge`)
separated   targets too computed once (the `Judge`)

Every way starts from the same pictures and texts. The plain way costs the same for every pair, so a sample of pairs is
timed and scaled, in the batch size that was fastest on this machine beforehand; `joint` costs the same for every
target, so a few targets are timed with all queries and scaled; `separated` is timed in full. Ways take turns, the
fastest of the repeats counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

from modeling.ps_reid.judge import Judge
from modeling.ps_reid.model import PsReid
from modeling.ps_reid.reference import PlainJudge
from modeling.types import QueryInput, TargetInput
from workflows.bench.config import BenchConfig
from workflows.bench.pairs import PERSONS, all_pairs, made_up_queries, made_up_targets, spread_pairs
from workflows.bench.promise import WAYS, TokenCounts, count_tokens, promised_ratio, token_prices
from workflows.bench.stopwatch import CLOCKS, Stopwatch
from workflows.progress import Progress
from workflows.tracking.registry import local_model

PARTS = ("vision", "language", "read-out", "rest")
LEAST_TARGETS = len(PERSONS)  # one of each kind
BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # that the plain way may choose from, pairs
PROBE_PAIRS = 32


@dataclass(frozen=True)
class Timing:
    """One way on all Q x N pairs."""

    way: str
    num_queries: int
    num_targets: int
    timed_pairs: int
    """Pairs that were really judged; where fewer than all, the seconds are scaled."""
    seconds: float
    parts: Mapping[str, float]
    """Seconds in vision encoder, language model and read-out, and the rest: pictures, padding, Python."""
    ratio: float = 1.0
    """How many times faster than the plain way."""
    promise: float = 1.0
    """The same by token counts."""

    @property
    def pairs_per_s(self) -> float:
        return self.num_queries * self.num_targets / self.seconds

    @property
    def reached(self) -> float:
        """The share of the promise, a fraction of 1."""
        return self.ratio / self.promise


@dataclass(frozen=True)
class JudgeBench:
    """All timings, and what they were computed from."""

    device: str
    threads: int
    clock: str
    timings: list[Timing]
    counts: Mapping[int, TokenCounts]
    """By number of queries."""
    flops: tuple[float, float]
    """Of one language token and of one vision token, without attention."""
    plain_batch: int
    """Pairs of one batch of the plain way, chosen as the fastest."""


@dataclass
class _Runs:
    """The fastest run of a way so far, in seconds scaled to all pairs."""

    seconds: float = float("inf")
    parts: dict[str, float] = field(default_factory=dict)
    timed_pairs: int = 0


def bench_judge(config: BenchConfig, progress: Progress) -> JudgeBench:
    """Times all ways for every number of queries."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    joint = Judge.load(local_model(config.model), attention="joint", device=config.device)
    bench = _Bench(config, joint, Judge(joint.model, attention="separated"), made_up_targets(config.targets))
    prices = token_prices(joint.model)
    progress.start("bench judge", total=len(config.queries) * config.repeats * len(WAYS), unit="run")
    bench.warm_up()
    plain_batch = bench.choose_plain_batch()
    timings, counts = [], {}
    for num_queries in config.queries:
        queries = made_up_queries(num_queries)
        counts[num_queries] = count_tokens(joint.model, queries, bench.targets)
        runs = bench.time_ways(queries, progress)
        for way, run in runs.items():
            ratio = runs["plain"].seconds / run.seconds
            promise = promised_ratio(counts[num_queries], prices, way, num_queries, config.targets)
            size = (num_queries, config.targets, run.timed_pairs)
            timings.append(Timing(way, *size, run.seconds, run.parts, ratio, promise))
    progress.finish()
    flops = (prices.language_flops, prices.vision_flops)
    return JudgeBench(config.device, torch.get_num_threads(), config.clock, timings, counts, flops, plain_batch)


class _Bench:
    """The three ways over one set of targets."""

    def __init__(self, config: BenchConfig, joint: Judge, separated: Judge, targets: list[TargetInput]) -> None:
        self.targets = targets
        self._config = config
        self._plain = PlainJudge(joint.model, attention="joint")
        self._judges = {"joint": joint, "separated": separated}
        self._clock = CLOCKS[config.clock]

    def warm_up(self) -> None:
        """Everything once, so that no way pays for first-time work."""
        queries = made_up_queries(2)
        self._plain.judge(queries, self.targets[:2], all_pairs(queries, 2))
        for judge in self._judges.values():
            self._judge_all(judge, queries, 2)

    def choose_plain_batch(self) -> int:
        """Gives the plain way the batch size that suits it best here: caches like small ones, GPUs large ones."""
        queries = made_up_queries(LEAST_TARGETS)
        pairs = spread_pairs(queries, len(self.targets), PROBE_PAIRS)
        inputs = self._plain.prepare(queries, self.targets)
        judges = {size: PlainJudge(self._plain.model, attention="joint", pairs_per_batch=size) for size in BATCH_SIZES}
        seconds = {size: self._measure(partial(judge.decide, inputs, pairs))[0] for size, judge in judges.items()}
        best = min(seconds, key=seconds.__getitem__)
        self._plain = judges[best]
        return best

    def time_ways(self, queries: dict[str, QueryInput], progress: Progress) -> dict[str, _Runs]:
        """The fastest of several runs of each way, taken in turns."""
        best = {way: _Runs() for way in WAYS}
        for _ in range(self._config.repeats):
            for way, run in (
                ("plain", self._time_plain),
                ("joint", self._time_joint),
                ("separated", self._time_separated),
            ):
                found = run(queries)
                best[way] = min(best[way], found, key=lambda r: r.seconds)
                progress.advance()
        return best

    def _time_plain(self, queries: dict[str, QueryInput]) -> _Runs:
        """Pictures become tensors once; a sample of the pairs is decided, and scaled."""
        sample = spread_pairs(queries, len(self.targets), self._config.sample_pairs)
        scale = len(queries) * len(self.targets) / len(sample)
        started = self._clock()
        inputs = self._plain.prepare(queries, self.targets)
        prepare_s = self._clock() - started
        decide_s, parts = self._measure(lambda: self._plain.decide(inputs, sample))
        return _scaled(prepare_s, decide_s, parts, scale, len(sample))

    def _time_joint(self, queries: dict[str, QueryInput]) -> _Runs:
        """All queries on the first few targets; the targets' share is scaled."""
        wanted = -(-self._config.sample_pairs // len(queries))
        num_targets = min(len(self.targets), max(LEAST_TARGETS, wanted // LEAST_TARGETS * LEAST_TARGETS))
        return self._time_judge("joint", queries, num_targets)

    def _time_separated(self, queries: dict[str, QueryInput]) -> _Runs:
        return self._time_judge("separated", queries, len(self.targets))

    def _time_judge(self, way: str, queries: dict[str, QueryInput], num_targets: int) -> _Runs:
        judge, pairs = self._judges[way], all_pairs(queries, num_targets)
        encoded = {}

        def encode() -> None:
            encoded.update({query.query_id: query for query in judge.encode_queries(list(queries.values()))})

        encode_s, encode_parts = self._measure(encode)
        judge_s, judge_parts = self._measure(lambda: judge.judge(encoded, self.targets[:num_targets], pairs))
        runs = _scaled(encode_s, judge_s, judge_parts, len(self.targets) / num_targets, len(pairs))
        for part, seconds in encode_parts.items():
            runs.parts[part] += seconds
        runs.parts["rest"] -= sum(encode_parts.values())
        return runs

    def _judge_all(self, judge: Judge, queries: dict[str, QueryInput], num_targets: int) -> None:
        encoded = {query.query_id: query for query in judge.encode_queries(list(queries.values()))}
        judge.judge(encoded, self.targets[:num_targets], all_pairs(queries, num_targets))

    def _measure(self, work: Callable[[], object]) -> tuple[float, dict[str, float]]:
        """Seconds of some work, and of its parts."""
        stopwatch = Stopwatch(self._clock)
        with stopwatch.watch(_watched(self._plain.model)):
            started = self._clock()
            work()
            seconds = self._clock() - started
        return seconds, {part: stopwatch.seconds[part] for part in PARTS[:-1]}


def _scaled(fixed_s: float, sampled_s: float, parts: dict[str, float], scale: float, timed_pairs: int) -> _Runs:
    """A fixed time plus a sampled one, as often as `scale` says; `rest` is what no part accounts for."""
    seconds = fixed_s + sampled_s * scale
    scaled = {part: spent * scale for part, spent in parts.items()}
    return _Runs(seconds, scaled | {"rest": seconds - sum(scaled.values())}, timed_pairs)


def _watched(model: PsReid) -> list[tuple[object, str, str]]:
    """The methods of a model by the part they belong to; a method's own time is without that of others called by it."""
    language = ("encode_queries", "encode_targets", "decide", "decide_joint")
    return [
        (model.vision, "forward", "vision"),
        (model.language.model, "forward", "language"),
        *((model, method, "language") for method in language),
        *((model, method, "read-out") for method in ("read_out", "candidates")),
        (model.mask_prompt, "forward", "read-out"),
    ]
