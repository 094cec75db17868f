"""`psreid bench`: runs one of the benchmarks and says what came out, as a table and as numbers."""

from dataclasses import asdict
from typing import Any

from workflows.bench.config import BenchConfig
from workflows.progress import Plan, Progress, Summary

INGEST_RUN_S, PIPELINE_RUN_S = 120.0, 60.0  # a Ray Data pipeline takes seconds to start and to stop
NUM_RUNS = 3  # ours and two plain ones, each about that long


def run_bench(config: BenchConfig, progress: Progress) -> Summary:
    """Times what the config names. Judge and recall need torch, the others start Ray."""
    ways = {
        "judge": _judge,
        "recall": _recall,
        "shortlist": _shortlist,
        "ingest": _ingest,
        "pipeline": _pipeline,
        "memory": _memory,
        "train": _train,
        "attention": _attention,
    }
    return ways[config.what](config, progress)


def plan_bench(config: BenchConfig) -> Plan:
    """What would be timed."""
    if config.what == "judge":
        lines: dict[str, int | float | str] = {
            "queries": ", ".join(map(str, config.queries)), "targets": config.targets,
            "ways": "plain, joint, separated", "repeats": config.repeats,
        }  # fmt: skip
        return Plan(lines)
    if config.what == "memory":
        return Plan({"archive": str(config.source), "frames": ", ".join(map(str, config.sizes))})
    if config.what == "recall":
        listed = ", ".join(map(str, config.rows))
        memory = f"{2e-9 * max(config.rows) * config.dim:.1f} GB and what faiss needs; with less, in blocks"
        return Plan(
            {
                "rows": listed,
                "dim": config.dim,
                "top": config.top,
                "queries": ", ".join(map(str, config.queries)),
                "memory": memory,
                "repeats": config.repeats,
            }
        )
    if config.what == "shortlist":
        return Plan({"search": str(config.source), "against": str(config.against)})
    if config.what == "train":
        return Plan({"frames": str(config.source), "workers": config.workers, "steps of each way": config.steps})
    if config.what == "attention":
        lines = {"benchmark": str(config.source), "gallery": config.gallery, "training": str(config.training)}
        return Plan(lines | {"ways": "separated, then joint for as long"})
    least_s = config.least_s or (INGEST_RUN_S if config.what == "ingest" else PIPELINE_RUN_S)
    return Plan({"source": str(config.source), "runs": NUM_RUNS, "seconds each, at least": least_s}, NUM_RUNS * least_s)


def _train(config: BenchConfig, progress: Progress) -> Summary:
    from workflows.bench.train import bench_train

    figures = bench_train(config, progress)
    headline = (
        f"Ray Train with DeepSpeed ZeRO {figures['zero_stage']} trains {figures['ours_targets_per_s']:.2f} targets/s "
        f"on {figures['workers']} workers, a plain loop {figures['plain_targets_per_s']:.2f} on the same cores: "
        f"{figures['ratio']:.2f} of it (aim {figures['target_ratio']})."
    )
    return _summary(headline, "train", figures)


def _attention(config: BenchConfig, progress: Progress) -> Summary:
    from workflows.bench.attention import bench_attention

    ways = bench_attention(config, progress)
    lines = [
        f"{'':<11}{'steps':>7}{'train s':>9}{'pairs/s, train':>16}{'judge':>8}"
        + "".join(f"{name:>11}" for name in ways[0].scores)
    ]
    for way in ways:
        scores = "".join(f"{'-' if v is None else format(100 * v, '.1f'):>11}" for v in way.scores.values())
        lines.append(
            f"{way.attention:<11}{way.steps:>7}{way.train_s:>9.0f}{way.train_pairs_per_s:>16.1f}"
            f"{way.judged_pairs_per_s:>8.1f}{scores}"
        )
    separated, joint = ways
    headline = (
        f"In {separated.train_s:.0f} s of training separated sees {separated.train_pairs_per_s:.1f} pairs/s, joint "
        f"{joint.train_pairs_per_s:.1f}; they judge {separated.judged_pairs_per_s:.1f} and "
        f"{joint.judged_pairs_per_s:.1f} pairs/s a worker on {config.gallery}."
    )
    return Summary(headline, "", details=lines, record={"attention": [asdict(way) for way in ways]})


def _judge(config: BenchConfig, progress: Progress) -> Summary:
    from workflows.bench.judge import bench_judge
    from workflows.bench.table import judge_record, judge_table

    bench = bench_judge(config, progress)
    best = [t for t in bench.timings if t.way == "separated"][-1]
    headline = (
        f"Separated judges {best.num_queries} queries on {best.num_targets} targets {best.ratio:.1f} times as fast as "
        f"one forward per pair: {best.reached:.0%} of the {best.promise:.1f} that the token counts promise."
    )
    return Summary(headline, "", details=judge_table(bench), record=judge_record(bench))


def _recall(config: BenchConfig, progress: Progress) -> Summary:
    from workflows.bench.recall import bench_recall, recall_record, recall_table

    bench = bench_recall(config, progress)
    last = bench.timings[-1]
    against = f"{last.ratio:.1f} times as fast as faiss IndexFlatIP" if last.ratio else "faiss is not installed"
    headline = (
        f"Exact top-{config.top} of {last.rows} embeddings for {last.num_queries} queries takes {last.seconds:.2f} s: "
        f"{against}; its first line reads at {bench.memory_share(bench.timings[0]):.0%} of the memory's speed."
    )
    return Summary(headline, "", details=recall_table(bench), record=recall_record(bench))


def _shortlist(config: BenchConfig, progress: Progress) -> Summary:
    from workflows.search.coverage import measure_coverage

    found = measure_coverage(str(config.against), str(config.source))
    headline = (
        f"The shortlist holds {found.share:.2%} of the {found.rightly_accepted} pairs that exhaustive judging rightly "
        f"accepts, with {found.pairs_shortlisted} of {found.pairs_exhaustive} pairs judged: {found.speed_up:.1f} times "
        f"less work, top-1 {found.top1_shortlisted:.3f} beside {found.top1_exhaustive:.3f}."
    )
    return _summary(headline, "shortlist", asdict(found) | {"share": found.share, "speed_up": found.speed_up})


def _ingest(config: BenchConfig, progress: Progress) -> Summary:
    from workflows.ingest.bench import bench_ingest

    progress.say("bench ingest: plain decoding first, then the pipeline")
    bench = bench_ingest(str(config.source), every=config.every, run_s=config.least_s or INGEST_RUN_S)
    headline = (
        f"Ingest runs at {bench.ratio:.2f} of plain PyAV: {bench.pipeline_fps:.1f} frames/s against "
        f"{max(bench.plain_loop_fps, bench.plain_per_core_fps):.1f}, {bench.frames} frames on {bench.cores} cores."
    )
    return _summary(headline, "ingest", asdict(bench))


def _pipeline(config: BenchConfig, progress: Progress) -> Summary:
    from workflows.search.bench import bench_pipeline

    progress.say("bench pipeline: the pipeline first, then plain loops")
    bench = bench_pipeline(str(config.source), model=config.model, least_s=config.least_s or PIPELINE_RUN_S)
    plain = max(bench.one_process_frames_per_s, bench.process_per_core_frames_per_s)
    headline = (
        f"The Ray pipeline runs at {bench.ratio:.2f} of a bare loop: {bench.pipeline_frames_per_s:.1f} frames/s "
        f"against {plain:.1f}, {bench.frames} frames on {bench.cores} cores in {bench.pipeline_s:.0f} s."
    )
    return _summary(headline, "pipeline", {**asdict(bench), "ratio": bench.ratio})


def _memory(config: BenchConfig, progress: Progress) -> Summary:
    from workflows.bench.memory import STEPS, bench_memory

    figures = bench_memory(str(config.source), sizes=config.sizes, model=config.model, progress=progress)
    lines = [f"{'step':<8}{'frames':>8}{'driver MiB':>12}{'largest worker MiB':>20}{'workers':>9}"]
    lines += [
        f"{f.step:<8}{f.frames:>8}{f.driver_mib:>12.0f}{f.largest_worker_mib:>20.0f}{f.num_workers:>9}" for f in figures
    ]
    first, last = figures[: len(STEPS)], figures[-len(STEPS) :]
    driver = max(b.driver_mib / a.driver_mib for a, b in zip(first, last, strict=True))
    worker = max(b.largest_worker_mib / a.largest_worker_mib for a, b in zip(first, last, strict=True))
    headline = (
        f"From {first[0].frames} to {last[0].frames} frames the driver's peak grows at most {driver:.2f} times, "
        f"the largest worker's {worker:.2f} times."
    )
    return Summary(headline, "", details=lines, record={"memory": [asdict(f) for f in figures]})


def _summary(headline: str, name: str, figures: dict[str, Any]) -> Summary:
    details = [f"{key.replace('_', ' '):<32}{value:>12,.2f}" for key, value in figures.items()]
    return Summary(headline, "", details=details, record={name: figures})
