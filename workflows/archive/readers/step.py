"""`psreid import`: a data set in, the tables of a benchmark out, in the places where `psreid synth` puts its own.

OUT/tables/frames/               what is searched (a step folder); `train/` and `val/` beside it, where there are such
OUT/tables/queries/              the queries (a step folder)
OUT/tables/galleries/galleries.parquet
OUT/dataset.json                 counts beside the published ones, settings with their junk rules; written last
"""

import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pyarrow as pa

from modeling.errors import DataError
from workflows.annotate.mot import parse_mot
from workflows.archive.readers.config import ImportConfig
from workflows.archive.readers.dataset import (
    Dataset,
    LabelledVideo,
    Picture,
    Setting,
    Split,
    one_query_per_identity,
    shared_gallery,
)
from workflows.archive.readers.formats import READERS
from workflows.archive.readers.mot import truth_of_frame
from workflows.archive.readers.source import Source
from workflows.archive.readers.stages import (
    ReadPictures,
    ReadQuestions,
    picture_shard,
    question_shard,
    video_truth_shard,
)
from workflows.ingest.payload import faulty_shard, video_shard
from workflows.ingest.sources import SourceFile
from workflows.ingest.split import cut_shards, sample_frames
from workflows.ingest.video_index import probe_video
from workflows.ledger import Manifest, Shard, StepIdentity, make_shard_id
from workflows.progress import Plan, Progress, Summary
from workflows.runner import run_step
from workflows.schema import ALL_QUERIES, GALLERIES, SCHEMA_VERSION
from workflows.stages import Resources, ShardBatch, StageSpec
from workflows.storage import Folder

CODE_VERSION = "1"  # raised when the same files would give other rows
TABLES: dict[Split, str] = {"test": "frames", "train": "train", "val": "val"}
ROW_GROUP_ROWS = 16
STAT_THREADS = 16
SAMPLE_PICTURES = 8
START_S = 6.0  # Ray's start and end
MOST_NAMED = 3


def run_import(config: ImportConfig, progress: Progress) -> Summary:
    """Runs or continues the import. DataError when the source is not what it should be."""
    source = Source(config.source)
    progress.say(f"import: reading the lists of {source.uri}")
    dataset, shards = _prepare(config, source)
    differences = count_differences(dataset)
    _report_differences(config, differences, progress)
    out = Folder(config.out)
    tables = out.child("tables")
    stage = StageSpec(ReadPictures, {"jpeg_quality": config.jpeg_quality}, Resources(cpus=1.0))
    done: dict[str, Manifest] = {}
    for split, name in TABLES.items():
        if shards[split]:
            done[name] = _run(config, tables.child(name), name, shards[split], stage, progress)
    if dataset.questions:
        frames_uri = tables.child("frames").uri
        cut = StageSpec(
            ReadQuestions, {"jpeg_quality": config.jpeg_quality, "frames_uri": frames_uri}, Resources(cpus=1.0)
        )
        plan = _question_shards(config, source, dataset)
        done["queries"] = _run(config, tables.child("queries"), "queries", plan, cut, progress)
    if dataset.galleries:
        tables.write_table("galleries/galleries.parquet", galleries_table(dataset))
    out.write_json("dataset.json", dataset_record(config, dataset, differences))
    return _summary(config, dataset, out, done, differences)


def plan_import(config: ImportConfig) -> Plan:
    """What would be imported; the time is measured on a few pictures."""
    source = Source(config.source)
    dataset, shards = _prepare(config, source)
    every = [shard for of_split in shards.values() for shard in of_split]
    rows = sum(shard.rows_expected or 0 for shard in every) + len(dataset.questions)
    lines: dict[str, int | float | str] = {**dataset.counts, "shards": len(every), "galleries": len(dataset.galleries)}
    lines |= {f"not as published: {name}": text for name, text in count_differences(dataset).items()}
    return Plan(lines, START_S + rows * _seconds_per_picture(config, source, dataset))


def count_differences(dataset: Dataset) -> dict[str, str]:
    """Name of each count that is not the published one -> what was found and by how much it differs."""
    counts = dataset.counts
    return {
        name: f"{counts.get(name, 0)} instead of {published} ({counts.get(name, 0) - published:+d})"
        for name, published in dataset.published.items()
        if counts.get(name, 0) != published
    }


def galleries_table(dataset: Dataset) -> pa.Table:
    """GALLERIES rows."""
    columns: dict[str, list[object]] = {name: [] for name in GALLERIES.names}
    for gallery, by_query in dataset.galleries.items():
        for query_id, frame_ids in by_query.items():
            for name, value in zip(GALLERIES.names, (gallery, query_id, frame_ids), strict=True):
                columns[name].append(value)
    return pa.Table.from_pydict(columns, GALLERIES)


def dataset_record(config: ImportConfig, dataset: Dataset, differences: dict[str, str]) -> dict[str, object]:
    """What `dataset.json` holds: all that evaluation must know beyond the tables."""
    return {
        "format": config.format,
        "variant": config.variant,
        "source": Folder(config.source).uri,
        "counts": dataset.counts,
        "published": dict(dataset.published),
        "differences": differences,
        "settings": [asdict(setting) for setting in dataset.settings],
        "unknown_identities": list(dataset.unknown_identities),
        "distractor_identities": list(dataset.distractor_identities),
        "all_queries": ALL_QUERIES,
        "notes": list(dataset.notes),
    }


def _prepare(config: ImportConfig, source: Source) -> tuple[Dataset, dict[Split, list[Shard]]]:
    """The data set, checked, and the shards of its frames by split."""
    reader = READERS[config.format]
    source.require(reader.needs, title=reader.title)
    dataset = reader.read(source, config.variant)
    shards: dict[Split, list[Shard]] = {split: [] for split in TABLES}
    if dataset.videos:
        video_shards, frames = _plan_videos(config, source, dataset)
        shards["test"] += video_shards
        dataset = replace(
            dataset,
            video_frames=frames,
            questions=[*dataset.questions, *(replace(q, file=None) for q in one_query_per_identity(frames))],
            galleries={"all": shared_gallery([*dataset.of_split("test"), *frames])},
            settings=[Setting("standard", ("all",))],
        )
    _check_unique("frame", [picture.frame_id for picture in dataset.pictures])
    _check_unique("query", [question.query_id for question in dataset.questions])
    for split in TABLES:
        shards[split] += _picture_shards(config, source, dataset.of_split(split))
    return dataset, shards


def _picture_shards(config: ImportConfig, source: Source, pictures: Sequence[Picture]) -> list[Shard]:
    versions = _versions(source, [picture.file for picture in pictures])
    size = config.shard_frames
    return [
        picture_shard(pictures[start : start + size], versions=versions[start : start + size], source_uri=source.uri)
        for start in range(0, len(pictures), size)
    ]


def _question_shards(config: ImportConfig, source: Source, dataset: Dataset) -> list[Shard]:
    size = config.shard_frames
    files = [question.file or question.instruction_file for question in dataset.questions]
    versions = _versions(source, files)
    return [
        question_shard(
            dataset.questions[start : start + size], versions=versions[start : start + size], source_uri=source.uri
        )
        for start in range(0, len(dataset.questions), size)
    ]


def _plan_videos(config: ImportConfig, source: Source, dataset: Dataset) -> tuple[list[Shard], list[Picture]]:
    """Shards of the labelled videos, and their sampled frames as pictures without a file of their own."""
    shards: list[Shard] = []
    frames: list[Picture] = []
    for video in dataset.videos:
        file = SourceFile(source.folder.path(video.file), "video", video.name, video.name)
        probe = probe_video(file.uri)
        if probe.faults:
            shards.append(_labelled(source, video, faulty_shard(file, probe.faults)))
        if probe.index is None:
            continue
        wanted = sample_frames(probe.index, every=config.every)
        truth = parse_mot(source.folder.read_bytes(video.truth), source=source.folder.path(video.truth))
        beyond = max(truth, default=1) - probe.index.num_frames
        if beyond > 0:
            raise DataError(
                f"{source.folder.path(video.truth)} labels frame {max(truth)}, but {file.uri} has "
                f"{probe.index.num_frames} frames. The first frame must be 1, and the video the one that was labelled."
            )
        cuts = cut_shards(probe.index, wanted, shard_frames=config.shard_frames, keep_gops_whole=True)
        shards += [_labelled(source, video, video_shard(file, runs, content=probe.index.content)) for runs in cuts]
        for index in wanted.tolist():
            rows = truth[index + 1].tolist() if index + 1 in truth else []
            persons = truth_of_frame(rows, video.name)
            frames.append(Picture(video.file, video.name, persons, video=video.name, frame_index=index))
    return shards, frames


def _labelled(source: Source, video: LabelledVideo, shard: Shard) -> Shard:
    version = source.folder.identity(video.truth)
    return video_truth_shard(shard, truth_uri=source.folder.path(video.truth), truth_version=version, name=video.name)


def _run(
    config: ImportConfig, folder: Folder, table: str, shards: Sequence[Shard], stage: StageSpec, progress: Progress
) -> Manifest:
    settings = config.model_dump(mode="json", include={"format", "variant", "every", "shard_frames", "jpeg_quality"})
    inputs = {"source": make_shard_id([shard.shard_id for shard in shards])}
    return run_step(
        folder=folder,
        identity=StepIdentity("import", {**settings, "table": table}, inputs, CODE_VERSION, SCHEMA_VERSION),
        shards=shards,
        stages=[stage],
        max_quarantine_share=config.max_quarantine_share,
        progress=progress,
        row_group_rows=ROW_GROUP_ROWS,
    )


def _versions(source: Source, files: Sequence[str | None]) -> list[str]:
    """What changes when a file may have changed; empty where there is no file."""
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        return list(pool.map(lambda name: source.folder.identity(name) if name else "", files))


def _check_unique(what: str, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} {what} names occur more than once: {', '.join(twice[:MOST_NAMED])}. "
            "Remove copies from the source, or rename them."
        )


def _report_differences(config: ImportConfig, differences: dict[str, str], progress: Progress) -> None:
    """Says which counts are not the published ones; DataError with `strict`."""
    if differences and config.strict:
        listed = "; ".join(f"{name}: {text}" for name, text in differences.items())
        raise DataError(
            f"{Folder(config.source).uri} is not the published {READERS[config.format].title}: {listed}. "
            "Unpack it completely, or import it without strict."
        )
    for name, text in differences.items():
        progress.say(f"import: not as published: {name}: {text}")


def _seconds_per_picture(config: ImportConfig, source: Source, dataset: Dataset) -> float:
    """Measured on a few pictures, with every core at work."""
    sample = dataset.pictures[:SAMPLE_PICTURES]
    if not sample:
        return 0.0
    shard = picture_shard(sample, versions=[], source_uri=source.uri)
    stage = ReadPictures(jpeg_quality=config.jpeg_quality)
    started = time.monotonic()
    stage(ShardBatch(shard))
    return (time.monotonic() - started) / len(sample) / (os.cpu_count() or 1)


def _summary(
    config: ImportConfig, dataset: Dataset, out: Folder, done: dict[str, Manifest], differences: dict[str, str]
) -> Summary:
    details = [f"{name}: {manifest.rows} rows" for name, manifest in done.items()]
    details += [
        f"{name}: set aside {manifest.quarantined}, see {out.path(f'tables/{name}/quarantine')}/"
        for name, manifest in done.items()
        if manifest.quarantined
    ]
    details += [f"not as published: {name}: {text}" for name, text in differences.items()]
    details += list(dataset.notes)
    complete = "All counts are the published ones." if dataset.published and not differences else ""
    frames = sum(manifest.rows for name, manifest in done.items() if name != "queries")
    queries = done["queries"].rows if "queries" in done else 0
    headline = (
        f"{READERS[config.format].title}: {frames} frames and {queries} queries are in {out.path('tables')}. {complete}"
    )
    figures = {**dataset.counts, "differences": len(differences)}
    return Summary(headline.strip(), out.uri, figures, details)
