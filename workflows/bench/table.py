"""The judge's timings as text and as JSON."""

from typing import Any

from workflows.bench.judge import PARTS, JudgeBench, Timing
from workflows.bench.promise import TokenCounts

HEADER = (
    f"{'Q':>3} {'N':>4}  {'way':<10} {'pairs/s':>9} {'ratio':>7} {'promise':>8} {'reached':>8} "
    f"{'timed':>6}  us per pair: {'vision':>9} {'language':>9} {'read-out':>9} {'rest':>9}   us a token"
)


def judge_table(bench: JudgeBench) -> list[str]:
    """Lines for a person: the setting, one line per way and number of queries, and how to read them."""
    counts = bench.counts[max(bench.counts)]
    language, vision = bench.flops
    where = f"{bench.device}, {bench.threads} thread{'s' * (bench.threads > 1)}, {bench.clock} clock"
    return [
        f"{where}; mean tokens: query {counts.query:.0f}, target {counts.target:.0f}, decision {counts.decision:.0f}; "
        f"vision: query {counts.query_vision:.0f}, target {counts.target_vision:.0f}",
        f"a language token passes {language / 1e6:.2f} MFLOP of weights, a vision token {vision / 1e6:.2f}; "
        f"the plain way takes {bench.plain_batch} pairs at a time, its fastest here",
        HEADER,
        *(_line(timing, bench.counts[timing.num_queries]) for timing in bench.timings),
        "ratio: to plain. promise: by token counts, language and vision tokens weighed by the FLOPs of their weights.",
        "timed: pairs really judged; where fewer than Q x N, the time of the rest is scaled (plain, joint).",
        "us a token: seconds in the language model over the language tokens that the way needs by count.",
        "",
    ]


def judge_record(bench: JudgeBench) -> dict[str, Any]:
    """The same for a machine."""
    rows = [
        {
            "way": t.way, "queries": t.num_queries, "targets": t.num_targets, "pairs_per_s": t.pairs_per_s,
            "ratio": t.ratio, "promise": t.promise, "reached": t.reached, "timed_pairs": t.timed_pairs,
            "seconds": t.seconds, "seconds_in": dict(t.parts),
            "language_tokens": bench.counts[t.num_queries].language(t.way, t.num_queries, t.num_targets),
            "vision_tokens": bench.counts[t.num_queries].vision(t.way, t.num_queries, t.num_targets),
        }
        for t in bench.timings
    ]  # fmt: skip
    language, vision = bench.flops
    setting = {
        "device": bench.device,
        "threads": bench.threads,
        "clock": bench.clock,
        "plain_pairs_per_batch": bench.plain_batch,
    }
    return {"judge": rows, **setting, "language_token_flops": language, "vision_token_flops": vision}


def _line(timing: Timing, counts: TokenCounts) -> str:
    pairs = timing.num_queries * timing.num_targets
    parts = " ".join(f"{1e6 * timing.parts[part] / pairs:9.0f}" for part in PARTS)
    tokens = counts.language(timing.way, timing.num_queries, timing.num_targets)
    return (
        f"{timing.num_queries:>3} {timing.num_targets:>4}  {timing.way:<10} {timing.pairs_per_s:9.1f} "
        f"{timing.ratio:7.2f} {timing.promise:8.2f} {timing.reached:8.0%} {timing.timed_pairs:6}"
        f"{' ' * 15}{parts}   {1e6 * timing.parts['language'] / tokens:10.1f}"
    )
